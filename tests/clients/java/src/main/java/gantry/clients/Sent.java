package gantry.clients;

import static gantry.clients.Failure.check;
import static gantry.clients.Failure.expect;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.rocketmq.client.apis.message.MessageView;

/** A message as it was sent. */
final class Sent {
    final byte[] body;
    Optional<String> tag = Optional.empty();
    List<String> keys = List.of();
    Map<String, String> properties = Map.of();
    String id;

    Sent(byte[] body) {
        this.body = body;
    }

    Sent(String body) {
        this(body.getBytes(StandardCharsets.UTF_8));
    }

    Sent tag(String tag) {
        this.tag = Optional.ofNullable(tag);
        return this;
    }

    Sent keys(String... keys) {
        this.keys = List.of(keys);
        return this;
    }

    Sent properties(Map<String, String> properties) {
        this.properties = properties;
        return this;
    }

    /** Checks that the message is this one, delivered for the attempt-th time. */
    void verify(MessageView message, int attempt) {
        expect("message id", message.getMessageId().toString(), id);
        expect("tag of " + id, message.getTag(), tag);
        expect("keys of " + id, Set.copyOf(message.getKeys()), Set.copyOf(keys));
        expect("properties of " + id, message.getProperties(), properties);
        expect("delivery attempt of " + id, message.getDeliveryAttempt(), attempt);
        verifyBody(message);
    }

    void verifyBody(MessageView message) {
        boolean same = message.getBody().equals(ByteBuffer.wrap(body));
        check(same, "body of %s (%d bytes) came back changed", id, body.length);
    }
}

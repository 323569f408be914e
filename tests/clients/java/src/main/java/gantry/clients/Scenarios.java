package gantry.clients;

import static gantry.clients.Failure.check;
import static gantry.clients.Failure.expect;
import static gantry.clients.Fixture.AWAIT;
import static gantry.clients.Fixture.INVISIBLE;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/** The scenarios, each a method with its fixture; what they mean is in tests/clients/README.md. */
final class Scenarios {
    static final Map<String, Main.Scenario> ALL = new LinkedHashMap<>();

    static {
        ALL.put("send-receive-ack", Scenarios::sendReceiveAck);
        ALL.put("push-consume", Scenarios::pushConsume);
        ALL.put("tag-filter", Scenarios::tagFilter);
        ALL.put("redelivery", Scenarios::redelivery);
        ALL.put("change-invisible", Scenarios::changeInvisible);
        ALL.put("dead-letter", Scenarios::deadLetter);
        ALL.put("push-retry", Scenarios::pushRetry);
        ALL.put("large-body", Scenarios::largeBody);
        ALL.put("empty-poll", Scenarios::emptyPoll);
    }

    private static final int MIB = 1 << 20;

    private static void sendReceiveAck(Fixture fixture) throws Exception {
        Producer producer = fixture.producer();
        SimpleConsumer consumer = fixture.simpleConsumer();
        int count = 20;
        Map<String, Sent> byId = new HashMap<>();
        for (int i = 0; i < count; i++) {
            // This client refuses properties with empty values.
            Sent sent = fixture.send(producer, new Sent("body " + i)
                    .tag("tag")
                    .keys("key-" + i, "other-key-" + i)
                    .properties(Map.of("index", "" + i, "unicode", "grüße, 世界 🚀", "plain", "value")));
            byId.put(sent.id, sent);
        }
        expect("number of different message ids", byId.size(), count);
        for (MessageView message : fixture.receive(consumer, count, INVISIBLE)) {
            Sent sent = byId.remove(message.getMessageId().toString());
            check(sent != null, "message id %s is unknown or came twice", message.getMessageId());
            sent.verify(message, 1);
            expect("topic", message.getTopic(), fixture.topic);
            consumer.ack(message);
        }
        fixture.expectNothing(consumer);
    }

    private static void pushConsume(Fixture fixture) throws Exception {
        Inbox inbox = fixture.pushConsumer(message -> true);
        Producer producer = fixture.producer();
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            sent.add(fixture.send(producer, new Sent("body " + i)).id);
        }
        List<MessageView> deliveries = inbox.waitFor(sent.size(), fixture);
        expect("delivered ids", Fixture.ids(deliveries), sent.stream().sorted().toList());
    }

    private static void tagFilter(Fixture fixture) throws Exception {
        Producer producer = fixture.producer();
        SimpleConsumer consumer = fixture.simpleConsumer(fixture.topic, fixture.group, "a || b", AWAIT);
        List<String> wanted = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            for (String tag : Arrays.asList("a", "b", "c", null)) {
                Sent sent = fixture.send(producer, new Sent(tag + " " + i).tag(tag));
                if ("a".equals(tag) || "b".equals(tag)) {
                    wanted.add(sent.id);
                }
            }
        }
        List<MessageView> messages = fixture.receive(consumer, wanted.size(), INVISIBLE);
        expect("received ids", Fixture.ids(messages), wanted.stream().sorted().toList());
        for (MessageView message : messages) {
            consumer.ack(message);
        }
        fixture.expectNothing(consumer);
    }

    private static void redelivery(Fixture fixture) throws Exception {
        SimpleConsumer consumer = fixture.simpleConsumer();
        Sent sent = fixture.send(fixture.producer(), new Sent("unacknowledged at first"));
        sent.verify(fixture.receiveOne(consumer, Duration.ofSeconds(10)), 1);
        long received = System.nanoTime();
        MessageView again = fixture.receiveOne(consumer, INVISIBLE);
        double waited = secondsSince(received);
        sent.verify(again, 2);
        check(waited >= 9.5, "redelivered after %.1f s, invisible for 10 s", waited);
        consumer.ack(again);
        fixture.expectNothing(consumer);
    }

    private static void changeInvisible(Fixture fixture) throws Exception {
        SimpleConsumer consumer = fixture.simpleConsumer();
        Sent sent = fixture.send(fixture.producer(), new Sent("shortened"));
        MessageView message = fixture.receiveOne(consumer, Duration.ofSeconds(60));
        sent.verify(message, 1);
        long changed = System.nanoTime();
        consumer.changeInvisibleDuration(message, Duration.ofSeconds(1));
        MessageView again = fixture.receiveOne(consumer, INVISIBLE);
        double waited = secondsSince(changed);
        sent.verify(again, 2);
        check(waited <= 10, "redelivered after %.1f s, invisible for 1 s", waited);
        consumer.ack(again);
        fixture.expectNothing(consumer);
    }

    private static void deadLetter(Fixture fixture) throws Exception {
        SimpleConsumer consumer = fixture.simpleConsumer();
        Sent sent = new Sent("never acknowledged").properties(Map.of("kept", "yes"));
        fixture.send(fixture.producer(), sent);
        for (int attempt = 1; attempt <= 2; attempt++) {
            MessageView message = fixture.receiveOne(consumer, INVISIBLE);
            sent.verify(message, attempt);
            consumer.changeInvisibleDuration(message, Duration.ofSeconds(1));
        }
        fixture.expectNothing(consumer);
        String deadLetters = "%DLQ%" + fixture.group;
        SimpleConsumer reader = fixture.simpleConsumer(deadLetters, fixture.topic + "-reader", "*", AWAIT);
        MessageView dead = fixture.receiveOne(reader, INVISIBLE);
        expect("message id of the dead letter", dead.getMessageId().toString(), sent.id);
        expect("topic of the dead letter", dead.getTopic(), deadLetters);
        expect("property of the dead letter", dead.getProperties().get("kept"), "yes");
        sent.verifyBody(dead);
        reader.ack(dead);
        fixture.expectNothing(reader);
        fixture.expectNothing(consumer);
    }

    private static void pushRetry(Fixture fixture) throws Exception {
        Inbox inbox = fixture.pushConsumer(message -> message.getDeliveryAttempt() > 1);
        Sent sent = fixture.send(fixture.producer(), new Sent("refused at first"));
        List<MessageView> deliveries = inbox.waitFor(2, fixture);
        expect("number of deliveries", deliveries.size(), 2);
        sent.verify(deliveries.get(0), 1);
        sent.verify(deliveries.get(1), 2);
    }

    private static void largeBody(Fixture fixture) throws Exception {
        Producer producer = fixture.producer();
        SimpleConsumer consumer = fixture.simpleConsumer();
        for (int size : new int[] {MIB, MIB * 39 / 10}) {
            byte[] body = new byte[size];
            for (int i = 0; i < size; i++) {
                body[i] = (byte) (i % 251);
            }
            Sent sent = fixture.send(producer, new Sent(body));
            MessageView message = fixture.receiveOne(consumer, INVISIBLE);
            sent.verify(message, 1);
            consumer.ack(message);
        }
    }

    private static void emptyPoll(Fixture fixture) throws Exception {
        SimpleConsumer consumer =
                fixture.simpleConsumer(fixture.topic, fixture.group, "*", Duration.ofSeconds(5));
        long asked = System.nanoTime();
        fixture.expectNothing(consumer);
        double waited = secondsSince(asked);
        check(waited >= 3 && waited <= 10, "an empty receive took %.1f s, asked to wait 5 s", waited);
    }

    private static double secondsSince(long moment) {
        return (System.nanoTime() - moment) / 1e9;
    }
}

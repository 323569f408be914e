package gantry.clients;

import static gantry.clients.Failure.check;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.MessageListener;
import org.apache.rocketmq.client.apis.message.MessageView;

/** Keeps what a push consumer was given. */
final class Inbox implements MessageListener {
    /** How long it is watched for a delivery too many. */
    private static final Duration WATCH = Duration.ofSeconds(1);

    private final Predicate<MessageView> accept;
    private final List<MessageView> messages = new ArrayList<>();

    /** With {@code accept} deciding whether a message counts as consumed. */
    Inbox(Predicate<MessageView> accept) {
        this.accept = accept;
    }

    @Override
    public ConsumeResult consume(MessageView message) {
        synchronized (this) {
            messages.add(message);
            notifyAll();
        }
        return accept.test(message) ? ConsumeResult.SUCCESS : ConsumeResult.FAILURE;
    }

    /** Waits until {@code count} deliveries came, and a moment longer for one too many; returns all. */
    synchronized List<MessageView> waitFor(int count, Fixture fixture) throws InterruptedException {
        hold(count, fixture.remaining());
        check(messages.size() >= count, "%d of %d deliveries came", messages.size(), count);
        hold(count + 1, WATCH);
        return List.copyOf(messages);
    }

    /** Returns as soon as {@code count} deliveries are here, after {@code limit} at the latest. */
    private void hold(int count, Duration limit) throws InterruptedException {
        long end = System.nanoTime() + limit.toNanos();
        while (messages.size() < count && System.nanoTime() < end) {
            wait((end - System.nanoTime()) / 1_000_000 + 1);
        }
    }
}

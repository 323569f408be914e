package gantry.clients;

import static gantry.clients.Failure.check;
import static gantry.clients.Fixture.AWAIT;
import static gantry.clients.Fixture.BATCH;
import static gantry.clients.Fixture.INVISIBLE;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Not tests but tools for them: a producer to stop from outside, a consumer that drains a topic. */
final class Tools {
    static final Map<String, Main.Scenario> ALL = Map.of(
            "produce-until-stopped", Tools::produceUntilStopped,
            "consume-until-quiet", Tools::consumeUntilQuiet);

    /** Milliseconds between two calls after the first of them failed. */
    private static final long PAUSE = 200;

    private static void produceUntilStopped(Fixture fixture) throws Exception {
        Producer producer = fixture.producer();
        CountDownLatch running = new CountDownLatch(1);
        daemon(() -> {
            drainStdin();
            running.countDown();
        });
        AtomicLong number = new AtomicLong();
        AtomicLong acked = new AtomicLong();
        AtomicLong errors = new AtomicLong();
        List<Thread> workers = new ArrayList<>();
        for (int i = 0; i < fixture.options.inflight; i++) {
            workers.add(daemon(() -> {
                while (running.getCount() > 0 && !fixture.remaining().isZero()) {
                    long mine = number.incrementAndGet();
                    try {
                        String id = producer.send(fixture.message(new Sent("" + mine))).getMessageId().toString();
                        acked.incrementAndGet();
                        say("ACKED", mine, id);
                    } catch (Exception error) {
                        errors.incrementAndGet();
                        say("ERROR", mine, error);
                        sleep();
                    }
                }
            }));
        }
        for (Thread worker : workers) {
            worker.join();
        }
        fixture.counts = "acked=%d errors=%d".formatted(acked.get(), errors.get());
    }

    private static void consumeUntilQuiet(Fixture fixture) throws Exception {
        Options options = fixture.options;
        String topic = options.topic.isEmpty() ? fixture.nameFor("produce-until-stopped") : options.topic;
        Duration await = options.quiet.compareTo(AWAIT) < 0 ? options.quiet : AWAIT;
        SimpleConsumer consumer = fixture.simpleConsumer(topic, fixture.group, "*", await);
        long received = 0;
        long errors = 0;
        long heard = System.nanoTime();
        while (System.nanoTime() - heard < options.quiet.toNanos()) {
            check(
                    !fixture.remaining().isZero(),
                    "no %d s of quiet within %d s", options.quiet.toSeconds(), options.timeout.toSeconds());
            try {
                List<MessageView> messages = consumer.receive(BATCH, INVISIBLE);
                for (MessageView message : messages) {
                    String body = StandardCharsets.UTF_8.decode(message.getBody()).toString();
                    say("RECEIVED", body, message.getMessageId(), message.getDeliveryAttempt());
                    received++;
                    heard = System.nanoTime();
                }
                CompletableFuture.allOf(
                        messages.stream().map(consumer::ackAsync).toArray(CompletableFuture[]::new)).get();
            } catch (Exception error) {
                errors++;
                heard = System.nanoTime(); // a server that fails is not a quiet one
                say("ERROR", error);
                sleep();
            }
        }
        fixture.counts = "received=%d errors=%d".formatted(received, errors);
    }

    private static Thread daemon(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    private static void drainStdin() {
        try {
            System.in.transferTo(OutputStream.nullOutputStream());
        } catch (IOException error) {
            say("ERROR", "standard input:", error);
        }
    }

    private static void sleep() {
        try {
            Thread.sleep(PAUSE);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    /** Prints one line. */
    private static void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object word : words) {
            line.append(word).append(' ');
        }
        System.out.println(Main.oneLine(line.toString()));
    }
}

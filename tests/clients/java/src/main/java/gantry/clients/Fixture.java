package gantry.clients;

import static gantry.clients.Failure.check;
import static gantry.clients.Failure.expect;

import java.io.Closeable;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/** What a scenario works with: names, clients that are closed after it, and waits that end. */
final class Fixture {
    /** How long a receive waits for a message. */
    static final Duration AWAIT = Duration.ofSeconds(3);
    /** How long a received message stays with its receiver. */
    static final Duration INVISIBLE = Duration.ofSeconds(30);
    static final int BATCH = 32;

    /** Version 1 of the client-made ids: 01, MAC address, process, time, counter. */
    private static final Pattern MESSAGE_ID = Pattern.compile("01[0-9A-Fa-f]{32}");
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();

    final Options options;
    final String topic;
    final String group;
    /** What a tool did, for its result line. */
    String counts = "";

    private final long deadline;
    private final ClientConfiguration configuration;
    private final Deque<Closeable> clients = new ArrayDeque<>();

    Fixture(String scenario, Options options) {
        this.options = options;
        this.topic = options.topic.isEmpty() ? nameFor(scenario) : options.topic;
        this.group = options.group.isEmpty() ? nameFor(scenario) + "-group" : options.group;
        this.deadline = System.nanoTime() + options.timeout.toNanos();
        this.configuration = ClientConfiguration.newBuilder()
                .setEndpoints(options.endpoint)
                .enableSsl(options.tls)
                .build();
    }

    String nameFor(String scenario) {
        return options.prefix + "-java-" + scenario;
    }

    /** What is left of the scenario's time. */
    Duration remaining() {
        return Duration.ofNanos(Math.max(0, deadline - System.nanoTime()));
    }

    Producer producer() throws ClientException {
        return opened(PROVIDER.newProducerBuilder()
                .setClientConfiguration(configuration)
                .setTopics(topic)
                .build());
    }

    SimpleConsumer simpleConsumer() throws ClientException {
        return simpleConsumer(topic, group, "*", AWAIT);
    }

    SimpleConsumer simpleConsumer(String topic, String group, String tags, Duration await) throws ClientException {
        return opened(PROVIDER.newSimpleConsumerBuilder()
                .setClientConfiguration(configuration)
                .setConsumerGroup(group)
                .setSubscriptionExpressions(Map.of(topic, new FilterExpression(tags)))
                .setAwaitDuration(await)
                .build());
    }

    /** Starts a push consumer on the scenario's topic; returns its inbox. */
    Inbox pushConsumer(Predicate<MessageView> accept) throws ClientException {
        Inbox inbox = new Inbox(accept);
        opened(PROVIDER.newPushConsumerBuilder()
                .setClientConfiguration(configuration)
                .setConsumerGroup(group)
                .setSubscriptionExpressions(Map.of(topic, FilterExpression.SUB_ALL))
                .setMessageListener(inbox)
                .build());
        return inbox;
    }

    private <C extends Closeable> C opened(C client) {
        clients.push(client);
        return client;
    }

    /** Sends one message to the scenario's topic and checks its receipt. */
    Sent send(Producer producer, Sent sent) throws ClientException {
        sent.id = producer.send(message(sent)).getMessageId().toString();
        check(MESSAGE_ID.matcher(sent.id).matches(), "message id %s is not of version 1", sent.id);
        return sent;
    }

    Message message(Sent sent) {
        MessageBuilder builder = PROVIDER.newMessageBuilder().setTopic(topic).setBody(sent.body);
        sent.tag.ifPresent(builder::setTag);
        builder.setKeys(sent.keys.toArray(String[]::new));
        sent.properties.forEach(builder::addProperty);
        return builder.build();
    }

    /** Receives until {@code count} messages came; more are a failure. */
    List<MessageView> receive(SimpleConsumer consumer, int count, Duration invisible) throws ClientException {
        List<MessageView> messages = new ArrayList<>();
        while (messages.size() < count) {
            check(!remaining().isZero(), "%d of %d messages came", messages.size(), count);
            messages.addAll(consumer.receive(BATCH, invisible));
        }
        expect("number of messages", messages.size(), count);
        return messages;
    }

    MessageView receiveOne(SimpleConsumer consumer, Duration invisible) throws ClientException {
        return receive(consumer, 1, invisible).get(0);
    }

    void expectNothing(SimpleConsumer consumer) throws ClientException {
        expect("what a further receive finds", ids(consumer.receive(BATCH, INVISIBLE)), List.of());
    }

    /** Shuts the clients down, the last one first. */
    void close() throws IOException {
        while (!clients.isEmpty()) {
            clients.pop().close();
        }
    }

    /** Returns the sorted message ids. */
    static List<String> ids(List<MessageView> messages) {
        return messages.stream().map(message -> message.getMessageId().toString()).sorted().toList();
    }
}

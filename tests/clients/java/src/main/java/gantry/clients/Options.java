package gantry.clients;

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** What the command line says. */
final class Options {
    private static final Map<String, String> DEFAULTS = Map.of(
            "endpoint", "", // HOST:PORT of the server
            "ca", "", // certificate file to trust; this client trusts any
            "prefix", "e2e", // first part of topic and group names
            "timeout", "30", // seconds that a scenario may wait
            "topic", "", // topic to use in place of the derived one
            "group", "", // consumer group to use in place of the derived one
            "inflight", "8", // sends at a time
            "quiet", "5"); // seconds without a message that end a consumer

    final String endpoint;
    final boolean tls;
    final String prefix;
    final Duration timeout;
    final String topic;
    final String group;
    final int inflight;
    final Duration quiet;
    final List<String> scenarios;

    private Options(Map<String, String> values, boolean tls, List<String> scenarios) {
        this.endpoint = values.get("endpoint");
        this.tls = tls;
        this.prefix = values.get("prefix");
        this.timeout = seconds(values.get("timeout"));
        this.topic = values.get("topic");
        this.group = values.get("group");
        this.inflight = Integer.parseInt(values.get("inflight"));
        this.quiet = seconds(values.get("quiet"));
        this.scenarios = scenarios;
    }

    static Options parse(String[] arguments) {
        Map<String, String> values = new HashMap<>(DEFAULTS);
        boolean tls = false;
        int at = 0;
        for (; at < arguments.length && arguments[at].startsWith("--"); at++) {
            String name = arguments[at].substring(2);
            if (name.equals("tls")) {
                tls = true;
            } else if (values.containsKey(name) && at + 1 < arguments.length) {
                values.put(name, arguments[++at]);
            } else {
                throw new IllegalArgumentException("unknown, or without its value: " + arguments[at]);
            }
        }
        List<String> scenarios = List.of(arguments).subList(at, arguments.length);
        if (values.get("endpoint").isEmpty() || scenarios.isEmpty()) {
            throw new IllegalArgumentException("needed: --endpoint HOST:PORT SCENARIO...");
        }
        return new Options(values, tls, scenarios);
    }

    private static Duration seconds(String text) {
        return Duration.ofMillis((long) (Double.parseDouble(text) * 1000));
    }
}

package gantry.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs named scenarios with the official Java client; the contract is in tests/clients/README.md. */
public final class Main {
    /** How many seconds longer than its own waits a scenario may take before it counts as stuck. */
    private static final long GRACE = 15;

    /** Something that may throw: a failure, a skip or an error of the client. */
    interface Step {
        void run() throws Exception;
    }

    /** Checks one thing. */
    interface Scenario {
        void run(Fixture fixture) throws Exception;
    }

    public static void main(String[] arguments) {
        Options options;
        try {
            options = Options.parse(arguments);
        } catch (IllegalArgumentException error) {
            System.err.println(error.getMessage());
            System.exit(2);
            return;
        }
        List<String> names = options.scenarios.equals(List.of("all"))
                ? new ArrayList<>(Scenarios.ALL.keySet())
                : options.scenarios;
        boolean failed = false;
        for (String name : names) {
            String line = run(name, options);
            System.out.println(line);
            failed |= line.startsWith("FAIL");
        }
        // Threads of a client that did not stop would keep the process alive.
        System.exit(failed ? 1 : 0);
    }

    /** Runs one scenario; returns its result line. */
    private static String run(String name, Options options) {
        Scenario scenario = Scenarios.ALL.getOrDefault(name, Tools.ALL.get(name));
        if (scenario == null) {
            return "FAIL " + name + " unknown scenario";
        }
        long started = System.nanoTime();
        Fixture fixture = new Fixture(name, options);
        long limit = options.timeout.toSeconds() + GRACE;
        Throwable scenarioError = within(limit, () -> scenario.run(fixture));
        Throwable closeError = within(limit, fixture::close);
        Throwable error = scenarioError != null ? scenarioError : closeError;
        if (error == null) {
            long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - started);
            return "PASS %s %dms %s".formatted(name, millis, fixture.counts).strip();
        }
        if (error instanceof Skip) {
            return "SKIP %s %s".formatted(name, error.getMessage());
        }
        String reason = error instanceof Failure ? error.getMessage() : error.toString();
        return "FAIL %s %s".formatted(name, oneLine(reason));
    }

    /** Returns the error of the step, or null; a step that takes too long is left to itself. */
    private static Throwable within(long seconds, Step step) {
        CompletableFuture<Void> done = new CompletableFuture<>();
        Thread worker = new Thread(() -> {
            try {
                step.run();
                done.complete(null);
            } catch (Throwable error) {
                done.completeExceptionally(error);
            }
        });
        worker.setDaemon(true);
        worker.start();
        try {
            done.get(seconds, TimeUnit.SECONDS);
            return null;
        } catch (ExecutionException error) {
            return error.getCause();
        } catch (TimeoutException | InterruptedException error) {
            return new Failure("stuck for " + seconds + " s");
        }
    }

    static String oneLine(String text) {
        return String.join(" ", text.strip().split("\\s+"));
    }
}

package gantry.clients;

import java.util.Objects;

/** The server did not do what the scenario asks for. */
final class Failure extends RuntimeException {
    Failure(String reason) {
        super(reason);
    }

    static void check(boolean condition, String reason, Object... values) {
        if (!condition) {
            throw new Failure(reason.formatted(values));
        }
    }

    static void expect(String what, Object actual, Object expected) {
        check(Objects.equals(actual, expected), "%s is %s, expected %s", what, actual, expected);
    }
}

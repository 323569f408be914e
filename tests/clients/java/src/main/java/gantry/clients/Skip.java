package gantry.clients;

/** The client lacks what the scenario needs. */
final class Skip extends RuntimeException {
    Skip(String reason) {
        super(reason);
    }
}

package compat;

/** What clients see of an ensemble whose members are killed and restarted. */
public final class Failover {
    private Failover() {}

    public static void main(String[] arguments) {
        Checks checks = new Checks();
        JavaFailover.add(checks);
        CuratorFailover.add(checks);
        checks.finish();
    }

    /** What is done to a leader. */
    interface Fault {
        void strike(int leader) throws Exception;
    }

    /**
     * What disturbed the clients of survivors. Ours: nothing does. Apache's server closes all connections when its leader
     * goes, and there this must be seen: it shows that it would be.
     */
    static void judge(String disturbances) {
        if (Ensemble.IS_APACHE) {
            Checks.that(!disturbances.isEmpty(), "Apache's server was expected to close connections");
        } else {
            Checks.equal("", disturbances);
        }
    }
}

package compat;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

/** The Java client that may be served read-only, while its ensemble loses its majority and gets it back. */
public final class ReadOnly {
    private static final int PATIENCE_SECONDS = 60;

    private ReadOnly() {}

    public static void main(String[] arguments) {
        Checks checks = new Checks();
        checks.check("Java: read-only without a majority, and a session of the ensemble when there is one again", ReadOnly::majorityLostAndFound);
        checks.finish();
    }

    private static void majorityLostAndFound() throws Exception {
        byte[] data = "x".getBytes(StandardCharsets.UTF_8);
        String path = "/java-read-only-" + System.nanoTime();
        LinkedBlockingQueue<KeeperState> states = new LinkedBlockingQueue<>();
        ZooKeeper writer = new ZooKeeper(Ensemble.all(), 30_000, event -> states.add(event.getState()));
        await(states, KeeperState.SyncConnected);
        writer.create(path, data, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        // Member 1 may be behind the one that has acknowledged.
        writer.close();
        try (ZooKeeper first = new ZooKeeper(Ensemble.address(1), 30_000, event -> states.add(event.getState()))) {
            states.clear();
            while (first.getState() != ZooKeeper.States.CONNECTED) {
                Thread.sleep(20);
            }
            first.sync("/", (code, of, context) -> { }, null);
            Checks.equal(1, first.getData(path, false, null).length);
        }
        Ensemble.stop(2);
        Ensemble.stop(3);
        states.clear();
        try (ZooKeeper reader = new ZooKeeper(Ensemble.all(), 30_000, event -> states.add(event.getState()), true)) {
            await(states, KeeperState.ConnectedReadOnly);
            Checks.equal(ZooKeeper.States.CONNECTEDREADONLY, reader.getState());
            Checks.equal("x", new String(reader.getData(path, false, null), StandardCharsets.UTF_8));
            try {
                reader.setData(path, data, -1);
                throw new AssertionError("a read-only server has taken a write");
            } catch (KeeperException.NotReadOnlyException expected) {
                Checks.equal(path, expected.getPath());
            }
            Ensemble.start(2, 3);
            await(states, KeeperState.SyncConnected);
            Checks.equal(1, reader.setData(path, data, 0).getVersion());
        }
    }

    private static void await(LinkedBlockingQueue<KeeperState> states, KeeperState wanted) throws Exception {
        KeeperState state;
        do {
            state = states.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
            Checks.that(state != null, "the state " + wanted + " did not come");
        } while (state != wanted);
    }
}

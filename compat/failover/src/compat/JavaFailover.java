package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/** Apache's Java client. */
final class JavaFailover {
    private static final int TIMEOUT_MS = 30_000;
    /** Written at this many in flight while the fault happens, and for so long after it. */
    private static final int IN_FLIGHT = 20;
    private static final int LOAD_MS = 2_500;

    private JavaFailover() {}

    static void add(Checks checks) {
        checks.check("Java: the leader is killed, clients of survivors notice nothing", () -> survivors(Ensemble::kill));
        checks.check("Java: the leader is stopped, clients of survivors notice nothing", () -> survivors(Ensemble::stop));
        checks.check("Java: the leader is killed, its own clients go on with their sessions", JavaFailover::ownClients);
        checks.check("Java: watches of survivors fire after the leader was killed", JavaFailover::watches);
        checks.check("Java: every member is restarted under load, no session is lost", JavaFailover::rolling);
    }

    /** A client of one member that writes without pause and remembers what disturbed it. */
    private static final class Writer implements Watcher, AutoCloseable {
        final List<String> disturbances = Collections.synchronizedList(new ArrayList<>());
        final AtomicInteger sent = new AtomicInteger();
        final AtomicInteger acknowledged = new AtomicInteger();
        final AtomicInteger failed = new AtomicInteger();
        final AtomicInteger sessionsLost = new AtomicInteger();
        final String path = "/failover-" + UUID.randomUUID();
        final ZooKeeper zookeeper;
        final long session;
        private final Semaphore room = new Semaphore(IN_FLIGHT);
        private final AtomicBoolean stopping = new AtomicBoolean();
        private final Thread thread = new Thread(this::write, "writer");

        Writer(String address) throws Exception {
            zookeeper = new ZooKeeper(address, TIMEOUT_MS, this);
            eventually("connected to " + address, () -> zookeeper.getState() == ZooKeeper.States.CONNECTED);
            session = zookeeper.getSessionId();
            zookeeper.create(path, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            zookeeper.create(path + "/ephemeral", new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            thread.start();
        }

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() == Event.EventType.None && event.getState() != Event.KeeperState.SyncConnected
                    && !stopping.get()) {
                disturbances.add(event.getState().toString());
            }
            if (event.getState() == Event.KeeperState.Expired) {
                sessionsLost.incrementAndGet();
            }
        }

        private void write() {
            while (!stopping.get()) {
                room.acquireUninterruptibly();
                byte[] number = String.valueOf(sent.incrementAndGet()).getBytes(StandardCharsets.UTF_8);
                zookeeper.setData(path, number, -1, (code, node, context, stat) -> {
                    if (code == KeeperException.Code.OK.intValue()) {
                        acknowledged.incrementAndGet();
                    } else {
                        failed.incrementAndGet();
                        disturbances.add(KeeperException.Code.get(code).toString());
                    }
                    room.release();
                }, null);
            }
        }

        /** Stops writing, and every write is answered. */
        void finish() throws Exception {
            stopping.set(true);
            thread.join();
            that(room.tryAcquire(IN_FLIGHT, 60, TimeUnit.SECONDS), "writes without an answer");
        }

        /** Whether it was written at least as often as was acknowledged, and never more often than was sent. */
        void checkCount() throws Exception {
            Stat stat = new Stat();
            eventually("connected again", () -> zookeeper.getState() == ZooKeeper.States.CONNECTED);
            zookeeper.getData(path, false, stat);
            that(stat.getVersion() >= acknowledged.get() && stat.getVersion() <= acknowledged.get() + failed.get(),
                    "version " + stat.getVersion() + " after " + acknowledged + " acknowledged and " + failed + " failed writes");
            that(acknowledged.get() > 0, "nothing was acknowledged");
            Stat ephemeral = zookeeper.exists(path + "/ephemeral", false);
            that(ephemeral != null && ephemeral.getEphemeralOwner() == session, "the ephemeral is gone: " + ephemeral);
            equal(session, zookeeper.getSessionId());
            equal(0, sessionsLost.get());
        }

        @Override
        public void close() throws Exception {
            stopping.set(true);
            zookeeper.close();
        }
    }

    private static void survivors(Failover.Fault fault) throws Exception {
        int leader = Ensemble.leader();
        List<Integer> others = Ensemble.others(leader);
        try (Writer first = new Writer(Ensemble.address(others.get(0)));
                Writer second = new Writer(Ensemble.address(others.get(1)))) {
            Thread.sleep(500);
            fault.strike(leader);
            int before = first.acknowledged.get();
            Thread.sleep(LOAD_MS);
            eventually("writes are acknowledged again", () -> first.acknowledged.get() > before);
            first.finish();
            second.finish();
            Ensemble.start(leader);
            first.checkCount();
            second.checkCount();
            Failover.judge(String.join(" ", first.disturbances) + String.join(" ", second.disturbances));
        }
    }

    private static void ownClients() throws Exception {
        int leader = Ensemble.leader();
        String leaderFirst = Ensemble.address(leader);
        String all = leaderFirst + "," + Ensemble.address(Ensemble.others(leader).get(0)) + ","
                + Ensemble.address(Ensemble.others(leader).get(1));
        try (Writer writer = new Writer(leaderFirst)) {
            // Now it knows the others too, and stays where it is: the server it has is in the new list.
            writer.zookeeper.updateServerList(all);
            eventually("connected", () -> writer.zookeeper.getState() == ZooKeeper.States.CONNECTED);
            Thread.sleep(500);
            Ensemble.kill(leader);
            int before = writer.acknowledged.get();
            eventually("writes are acknowledged again", () -> writer.acknowledged.get() > before + IN_FLIGHT);
            writer.finish();
            writer.checkCount();
        } finally {
            Ensemble.start(leader);
        }
    }

    private static void watches() throws Exception {
        int leader = Ensemble.leader();
        List<Integer> others = Ensemble.others(leader);
        Events events = new Events();
        try (ZooKeeper watching = open(Ensemble.address(others.get(0)), events);
                ZooKeeper writing = open(Ensemble.address(others.get(1)), new Events())) {
            String path = "/failover-" + UUID.randomUUID();
            writing.create(path, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            watching.sync(path, (code, node, context) -> { }, null);
            watching.getData(path, events, null);
            Ensemble.kill(leader);
            while (true) {
                try {
                    writing.setData(path, new byte[1], -1);
                    break;
                } catch (KeeperException.ConnectionLossException lost) {
                    that(Ensemble.IS_APACHE, "ConnectionLoss at a client of a survivor");
                }
            }
            events.expect(Watcher.Event.EventType.NodeDataChanged, path);
        } finally {
            Ensemble.start(leader);
        }
    }

    private static ZooKeeper open(String address, Events events) throws Exception {
        ZooKeeper zookeeper = new ZooKeeper(address, TIMEOUT_MS, events);
        events.awaitState(Watcher.Event.KeeperState.SyncConnected);
        return zookeeper;
    }

    private static void rolling() throws Exception {
        try (Writer first = new Writer(Ensemble.all()); Writer second = new Writer(Ensemble.all())) {
            for (int member = 1; member <= 3; member++) {
                int before = first.acknowledged.get();
                Ensemble.stop(member);
                eventually("writes go on without server " + member, () -> first.acknowledged.get() > before + IN_FLIGHT);
                Ensemble.start(member);
            }
            for (Writer writer : List.of(first, second)) {
                writer.finish();
                writer.checkCount();
                for (String disturbance : writer.disturbances) {
                    that(List.of("Disconnected", "CONNECTIONLOSS").contains(disturbance), "more than a reconnect: " + disturbance);
                }
            }
        }
    }
}

package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.zookeeper.CreateMode;

/** Curator's recipes. */
final class CuratorFailover {
    private static final int TIMEOUT_MS = 30_000;

    private CuratorFailover() {}

    static void add(Checks checks) {
        checks.check("Curator: a held lock, the leader is killed: no SUSPENDED, the lock stays held", () -> lock(Ensemble::kill));
        checks.check("Curator: a held lock, the leader is stopped: no SUSPENDED, the lock stays held", () -> lock(Ensemble::stop));
        checks.check("Curator: LeaderLatch keeps its leader when the ensemble's is killed", CuratorFailover::latch);
        checks.check("Curator: a counter, a cache and a node go on while the leader is killed", CuratorFailover::recipes);
        checks.check("Curator: clients of the killed leader are SUSPENDED and RECONNECTED, not LOST", CuratorFailover::ownClients);
        checks.check("Curator: every member is restarted, lock and latch are kept", CuratorFailover::rolling);
    }

    /** A client with all states that its connection went through after the first. */
    private static final class Client implements AutoCloseable {
        final CuratorFramework framework;
        final List<ConnectionState> states = Collections.synchronizedList(new ArrayList<>());

        Client(String address, String namespace) throws Exception {
            framework = CuratorFrameworkFactory.builder().connectString(address).namespace(namespace)
                    .sessionTimeoutMs(TIMEOUT_MS).connectionTimeoutMs(20_000)
                    .retryPolicy(new ExponentialBackoffRetry(100, 10)).build();
            framework.start();
            that(framework.blockUntilConnected(60, TimeUnit.SECONDS), "not connected to " + address);
            framework.getConnectionStateListenable().addListener((client, state) -> {
                if (state != ConnectionState.CONNECTED) {
                    states.add(state);
                }
            });
        }

        String disturbances() {
            return states.stream().map(ConnectionState::toString).collect(java.util.stream.Collectors.joining(" "));
        }

        @Override
        public void close() {
            framework.close();
        }
    }

    private static String namespace() {
        return "failover-" + UUID.randomUUID();
    }

    private static void lock(Failover.Fault fault) throws Exception {
        int leader = Ensemble.leader();
        List<Integer> others = Ensemble.others(leader);
        String namespace = namespace();
        try (Client first = new Client(Ensemble.address(others.get(0)), namespace);
                Client second = new Client(Ensemble.address(others.get(1)), namespace)) {
            InterProcessMutex held = new InterProcessMutex(first.framework, "/lock");
            InterProcessMutex wanted = new InterProcessMutex(second.framework, "/lock");
            held.acquire();
            fault.strike(leader);
            that(!wanted.acquire(2, TimeUnit.SECONDS), "the lock was given to two");
            that(held.isAcquiredInThisProcess(), "the lock was lost");
            Ensemble.start(leader);
            that(!wanted.acquire(200, TimeUnit.MILLISECONDS), "the lock was given to two");
            held.release();
            that(wanted.acquire(60, TimeUnit.SECONDS), "the lock was not given on");
            wanted.release();
            Failover.judge(first.disturbances() + second.disturbances());
        }
    }

    private static void latch() throws Exception {
        int leader = Ensemble.leader();
        List<Integer> others = Ensemble.others(leader);
        String namespace = namespace();
        try (Client first = new Client(Ensemble.address(others.get(0)), namespace);
                Client second = new Client(Ensemble.address(others.get(1)), namespace);
                LeaderLatch leading = new LeaderLatch(first.framework, "/latch");
                LeaderLatch waiting = new LeaderLatch(second.framework, "/latch")) {
            AtomicInteger changes = new AtomicInteger();
            leading.start();
            eventually("the first leads", leading::hasLeadership);
            leading.addListener(new LeaderLatchListener() {
                @Override
                public void isLeader() {
                    changes.incrementAndGet();
                }

                @Override
                public void notLeader() {
                    changes.incrementAndGet();
                }
            });
            waiting.start();
            eventually("both take part", () -> leading.getParticipants().size() == 2);
            Ensemble.kill(leader);
            eventually("reads and writes go on", () -> {
                first.framework.create().orSetData().forPath("/written");
                return leading.getParticipants().size() == 2;
            });
            Ensemble.start(leader);
            eventually("the first still leads", leading::hasLeadership);
            that(!waiting.hasLeadership(), "two lead");
            Failover.judge((changes.get() == 0 ? "" : changes + " changes of leadership ") + first.disturbances());
        }
    }

    private static void recipes() throws Exception {
        int leader = Ensemble.leader();
        List<Integer> others = Ensemble.others(leader);
        String namespace = namespace();
        AtomicBoolean stopping = new AtomicBoolean();
        AtomicInteger counted = new AtomicInteger();
        AtomicInteger uncertain = new AtomicInteger();
        try (Client first = new Client(Ensemble.address(others.get(0)), namespace);
                Client second = new Client(Ensemble.address(others.get(1)), namespace);
                CuratorCache cache = CuratorCache.build(second.framework, "/tree");
                PersistentNode node = new PersistentNode(first.framework, CreateMode.EPHEMERAL, false, "/node", new byte[0])) {
            first.framework.create().forPath("/tree");
            cache.start();
            node.start();
            that(node.waitForInitialCreate(60, TimeUnit.SECONDS), "the node was not created");
            DistributedAtomicLong counter = new DistributedAtomicLong(first.framework, "/counter", new ExponentialBackoffRetry(50, 10));
            Thread counting = new Thread(() -> {
                while (!stopping.get()) {
                    try {
                        AtomicValue<Long> value = counter.increment();
                        (value.succeeded() ? counted : uncertain).incrementAndGet();
                        first.framework.create().forPath("/tree/" + counted.get() + "-" + UUID.randomUUID());
                    } catch (Exception problem) {
                        uncertain.incrementAndGet();
                    }
                }
            }, "counting");
            counting.start();
            Thread.sleep(300);
            Ensemble.kill(leader);
            int before = counted.get();
            eventually("counting goes on", () -> counted.get() > before + 20);
            Ensemble.start(leader);
            stopping.set(true);
            counting.join();
            long value = counter.get().postValue();
            that(value >= counted.get() && value <= counted.get() + uncertain.get(),
                    "counted " + counted + ", and " + uncertain + " without an answer; it holds " + value);
            eventually("the cache holds every child", () ->
                    cache.stream().count() == 1 + first.framework.getChildren().forPath("/tree").size());
            that(first.framework.checkExists().forPath("/node") != null, "the node is gone");
            Failover.judge((uncertain.get() == 0 ? "" : uncertain + " without an answer ") + first.disturbances() + second.disturbances());
        }
    }

    private static void ownClients() throws Exception {
        int leader = Ensemble.leader();
        String namespace = namespace();
        try (Client client = new Client(Ensemble.address(leader), namespace)) {
            InterProcessMutex lock = new InterProcessMutex(client.framework, "/lock");
            lock.acquire();
            long session = client.framework.getZookeeperClient().getZooKeeper().getSessionId();
            Ensemble.kill(leader);
            eventually("suspended", () -> client.states.contains(ConnectionState.SUSPENDED));
            Ensemble.start(leader);
            eventually("reconnected", () -> client.states.contains(ConnectionState.RECONNECTED));
            equal(List.of(ConnectionState.SUSPENDED, ConnectionState.RECONNECTED), new ArrayList<>(client.states));
            equal(session, client.framework.getZookeeperClient().getZooKeeper().getSessionId());
            equal(1, client.framework.getChildren().forPath("/lock").size());
            lock.release();
        }
    }

    private static void rolling() throws Exception {
        String namespace = namespace();
        try (Client first = new Client(Ensemble.all(), namespace); Client second = new Client(Ensemble.all(), namespace)) {
            InterProcessMutex held = new InterProcessMutex(first.framework, "/lock");
            InterProcessMutex wanted = new InterProcessMutex(second.framework, "/lock");
            held.acquire();
            for (int member = 1; member <= 3; member++) {
                Ensemble.stop(member);
                that(!wanted.acquire(500, TimeUnit.MILLISECONDS), "the lock was given to two");
                Ensemble.start(member);
            }
            held.release();
            that(wanted.acquire(60, TimeUnit.SECONDS), "the lock was not given on");
            wanted.release();
            for (Client client : List.of(first, second)) {
                that(!client.states.contains(ConnectionState.LOST), "a session was lost: " + client.states);
            }
        }
    }
}

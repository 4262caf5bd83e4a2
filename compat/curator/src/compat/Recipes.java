package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.fails;
import static compat.Checks.that;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.RetryPolicy;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.CuratorEvent;
import org.apache.curator.framework.api.transaction.CuratorOp;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.VersionedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.x.async.AsyncCuratorFramework;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceProvider;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Stat;

/** Curator's recipes against the server named by ZK=host:port, several clients for each recipe. */
public final class Recipes {
    private static final String SERVER = System.getenv("ZK");
    private static final int SESSION_TIMEOUT_MS = 30_000;

    private Recipes() {}

    public static void main(String[] arguments) {
        Checks checks = new Checks();
        checks.check("framework: create with parents, protection, background, versions", withTwo(Recipes::framework));
        checks.check("transactions: whole or not at all", withTwo(Recipes::transactions));
        checks.check("InterProcessMutex excludes, is reentrant and is freed on close", withTwo(Recipes::mutex));
        checks.check("InterProcessReadWriteLock: readers together, a writer alone", withTwo(Recipes::readWriteLock));
        checks.check("InterProcessSemaphoreV2 hands out its leases and no more", withTwo(Recipes::semaphore));
        checks.check("LeaderLatch: one leader, the next after it", withTwo(Recipes::leaderLatch));
        checks.check("LeaderSelector: each leads in turn", withTwo(Recipes::leaderSelector));
        checks.check("CuratorCache mirrors a subtree and tells changes", withTwo(Recipes::cache));
        checks.check("PersistentWatcher sees a subtree", withTwo(Recipes::persistentWatcher));
        checks.check("DistributedBarrier holds until it is removed", withTwo(Recipes::barrier));
        checks.check("DistributedDoubleBarrier: in together, out together", withTwo(Recipes::doubleBarrier));
        checks.check("DistributedQueue gives each item once, in order", withTwo(Recipes::queue));
        checks.check("DistributedPriorityQueue: the smallest first", withTwo(Recipes::priorityQueue));
        checks.check("PersistentNode comes back after deletion", withTwo(Recipes::persistentNode));
        checks.check("PersistentNode and LeaderLatch outlive an expired session", Recipes::expiry);
        checks.check("PersistentTtlNode stays while it is held and goes afterwards", withTwo(Recipes::ttlNode));
        checks.check("GroupMember: members come and go", withTwo(Recipes::group));
        checks.check("SharedCount: versions and listeners", withTwo(Recipes::sharedCount));
        checks.check("DistributedAtomicLong counts without loss", withTwo(Recipes::atomicLong));
        checks.check("x-discovery: register, find, update, leave", withTwo(Recipes::discovery));
        checks.check("x-async: stages in order", withTwo(Recipes::async));
        checks.check("ACLs and authorization of the framework", Recipes::authorization);
        checks.finish();
    }

    private interface WithTwo {
        void run(CuratorFramework first, CuratorFramework second) throws Exception;
    }

    /** Two clients in a namespace of their own, which a znode of its own holds apart from other checks. */
    private static Checks.Body withTwo(WithTwo body) {
        return () -> {
            String namespace = "curator-" + UUID.randomUUID();
            try (CuratorFramework first = open(SERVER, namespace, SESSION_TIMEOUT_MS);
                    CuratorFramework second = open(SERVER, namespace, SESSION_TIMEOUT_MS)) {
                body.run(first, second);
            }
        };
    }

    private static CuratorFramework open(String address, String namespace, int timeoutMs) throws Exception {
        RetryPolicy retries = new ExponentialBackoffRetry(100, 10);
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(address).namespace(namespace)
                .sessionTimeoutMs(timeoutMs).connectionTimeoutMs(20_000).retryPolicy(retries).build();
        client.start();
        that(client.blockUntilConnected(60, TimeUnit.SECONDS), "not connected to " + address);
        return client;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private static void framework(CuratorFramework first, CuratorFramework second) throws Exception {
        equal("/a/b/c", first.create().creatingParentContainersIfNeeded().forPath("/a/b/c", bytes("x")));
        Stat stat = new Stat();
        equal("x", text(second.getData().storingStatIn(stat).forPath("/a/b/c")));
        fails(KeeperException.BadVersionException.class, () -> second.setData().withVersion(5).forPath("/a/b/c", bytes("y")));
        equal(1, second.setData().withVersion(stat.getVersion()).forPath("/a/b/c", bytes("y")).getVersion());
        String guarded = first.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/a/p-");
        that(guarded.startsWith("/a/_c_") && guarded.endsWith("0000000001"), "protected name " + guarded);
        first.create().orSetData().forPath("/a/b/c", bytes("z"));
        BlockingQueue<CuratorEvent> replies = new LinkedBlockingQueue<>();
        first.getChildren().inBackground((client, event) -> replies.add(event)).forPath("/a");
        equal(2, replies.poll(60, TimeUnit.SECONDS).getChildren().size());
        first.delete().guaranteed().deletingChildrenIfNeeded().forPath("/a");
        equal(null, second.checkExists().forPath("/a"));
    }

    private static void transactions(CuratorFramework first, CuratorFramework second) throws Exception {
        CuratorOp create = first.transactionOp().create().forPath("/t", bytes("1"));
        CuratorOp child = first.transactionOp().create().withMode(CreateMode.EPHEMERAL).forPath("/t/e", bytes("2"));
        CuratorOp set = first.transactionOp().setData().withVersion(0).forPath("/t", bytes("3"));
        CuratorOp check = first.transactionOp().check().withVersion(1).forPath("/t");
        List<CuratorTransactionResult> results = first.transaction().forOperations(create, child, set, check);
        equal(4, results.size());
        equal("3", text(second.getData().forPath("/t")));
        CuratorOp delete = first.transactionOp().delete().forPath("/t/e");
        CuratorOp wrong = first.transactionOp().check().withVersion(9).forPath("/t");
        fails(KeeperException.BadVersionException.class, () -> first.transaction().forOperations(delete, wrong));
        that(second.checkExists().forPath("/t/e") != null, "half a transaction was done");
    }

    private static void mutex(CuratorFramework first, CuratorFramework second) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger rounds = new AtomicInteger();
        List<Thread> threads = new ArrayList<>();
        List<Throwable> problems = Collections.synchronizedList(new ArrayList<>());
        for (CuratorFramework client : List.of(first, second, first, second)) {
            Thread thread = new Thread(() -> {
                InterProcessMutex lock = new InterProcessMutex(client, "/lock");
                try {
                    for (int round = 0; round < 25; round++) {
                        lock.acquire();
                        lock.acquire();
                        equal(1, inside.incrementAndGet());
                        rounds.incrementAndGet();
                        inside.decrementAndGet();
                        lock.release();
                        lock.release();
                    }
                } catch (Throwable problem) {
                    problems.add(problem);
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        equal(List.of(), problems);
        equal(100, rounds.get());
        CuratorFramework dying = open(SERVER, first.getNamespace(), SESSION_TIMEOUT_MS);
        new InterProcessMutex(dying, "/lock").acquire();
        InterProcessMutex lock = new InterProcessMutex(second, "/lock");
        that(!lock.acquire(300, TimeUnit.MILLISECONDS), "locked twice");
        dying.close();
        that(lock.acquire(60, TimeUnit.SECONDS), "not freed with its holder's session");
        equal(1, lock.getParticipantNodes().size());
        lock.release();
    }

    private static void readWriteLock(CuratorFramework first, CuratorFramework second) throws Exception {
        InterProcessReadWriteLock one = new InterProcessReadWriteLock(first, "/rw");
        InterProcessReadWriteLock two = new InterProcessReadWriteLock(second, "/rw");
        one.readLock().acquire();
        that(two.readLock().acquire(60, TimeUnit.SECONDS), "readers exclude each other");
        two.readLock().release();
        that(!two.writeLock().acquire(300, TimeUnit.MILLISECONDS), "a writer beside a reader");
        one.readLock().release();
        that(two.writeLock().acquire(60, TimeUnit.SECONDS), "the writer never got in");
        that(!one.readLock().acquire(300, TimeUnit.MILLISECONDS), "a reader beside a writer");
        two.writeLock().release();
    }

    private static void semaphore(CuratorFramework first, CuratorFramework second) throws Exception {
        Lease one = new InterProcessSemaphoreV2(first, "/semaphore", 2).acquire();
        InterProcessSemaphoreV2 other = new InterProcessSemaphoreV2(second, "/semaphore", 2);
        Lease two = other.acquire(60, TimeUnit.SECONDS);
        that(two != null, "the second lease was not given");
        equal(null, other.acquire(300, TimeUnit.MILLISECONDS));
        one.close();
        Lease three = other.acquire(60, TimeUnit.SECONDS);
        that(three != null, "a returned lease was not given again");
        other.returnAll(List.of(two, three));
    }

    private static void leaderLatch(CuratorFramework first, CuratorFramework second) throws Exception {
        LeaderLatch one = new LeaderLatch(first, "/latch", "one");
        try (LeaderLatch two = new LeaderLatch(second, "/latch", "two")) {
            one.start();
            that(one.await(60, TimeUnit.SECONDS), "nobody leads");
            two.start();
            eventually("two takes part", () -> one.getParticipants().size() == 2);
            that(!two.hasLeadership(), "two leaders");
            equal("one", two.getLeader().getId());
            one.close();
            that(two.await(60, TimeUnit.SECONDS), "nobody follows");
            equal("two", two.getLeader().getId());
        }
    }

    private static void leaderSelector(CuratorFramework first, CuratorFramework second) throws Exception {
        AtomicInteger leading = new AtomicInteger();
        BlockingQueue<String> turns = new LinkedBlockingQueue<>();
        List<LeaderSelector> selectors = new ArrayList<>();
        for (CuratorFramework client : List.of(first, second)) {
            String name = client == first ? "first" : "second";
            LeaderSelector selector = new LeaderSelector(client, "/selector", new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework own) throws Exception {
                    turns.add(leading.incrementAndGet() == 1 ? name : "two leaders");
                    Thread.sleep(50);
                    leading.decrementAndGet();
                }
            });
            selector.setId(name);
            selector.autoRequeue();
            selector.start();
            selectors.add(selector);
        }
        Set<String> seen = new HashSet<>();
        for (int turn = 0; turn < 6; turn++) {
            seen.add(turns.poll(60, TimeUnit.SECONDS));
        }
        selectors.forEach(LeaderSelector::close);
        equal(Set.of("first", "second"), seen);
    }

    private static void cache(CuratorFramework first, CuratorFramework second) throws Exception {
        first.create().creatingParentsIfNeeded().forPath("/tree/a/b", bytes("1"));
        BlockingQueue<String> changes = new LinkedBlockingQueue<>();
        CountDownLatch ready = new CountDownLatch(1);
        try (CuratorCache cache = CuratorCache.build(second, "/tree")) {
            cache.listenable().addListener(CuratorCacheListener.builder()
                    .forCreates(node -> changes.add("create " + node.getPath()))
                    .forChanges((before, after) -> changes.add("change " + after.getPath() + " " + text(after.getData())))
                    .forDeletes(node -> changes.add("delete " + node.getPath()))
                    .forInitialized(ready::countDown).build());
            cache.start();
            that(ready.await(60, TimeUnit.SECONDS), "never initialized");
            Set<String> initial = new TreeSet<>();
            cache.stream().map(ChildData::getPath).forEach(initial::add);
            equal(new TreeSet<>(Set.of("/tree", "/tree/a", "/tree/a/b")), initial);
            changes.clear();
            first.setData().forPath("/tree/a/b", bytes("2"));
            equal("change /tree/a/b 2", changes.poll(60, TimeUnit.SECONDS));
            first.create().forPath("/tree/c", bytes("3"));
            equal("create /tree/c", changes.poll(60, TimeUnit.SECONDS));
            first.delete().forPath("/tree/a/b");
            equal("delete /tree/a/b", changes.poll(60, TimeUnit.SECONDS));
            equal("3", text(cache.get("/tree/c").orElseThrow().getData()));
            for (int index = 0; index < 200; index++) {
                first.create().forPath("/tree/c/" + index, bytes("x"));
            }
            eventually("two hundred are mirrored", () -> cache.size() == 203);
        }
    }

    private static void persistentWatcher(CuratorFramework first, CuratorFramework second) throws Exception {
        first.create().forPath("/watched");
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        CountDownLatch set = new CountDownLatch(1);
        try (PersistentWatcher watcher = new PersistentWatcher(second, "/watched", true)) {
            watcher.getListenable().addListener(event -> events.add(event.getType() + " " + event.getPath()));
            watcher.getResetListenable().addListener(set::countDown);
            watcher.start();
            that(set.await(60, TimeUnit.SECONDS), "the watch was never set");
            first.create().forPath("/watched/a");
            first.setData().forPath("/watched/a", bytes("x"));
            first.delete().forPath("/watched/a");
            for (String kind : List.of("NodeCreated", "NodeDataChanged", "NodeDeleted")) {
                equal(kind + " /watched/a", events.poll(60, TimeUnit.SECONDS));
            }
        }
    }

    private static void barrier(CuratorFramework first, CuratorFramework second) throws Exception {
        DistributedBarrier setter = new DistributedBarrier(first, "/barrier");
        DistributedBarrier waiter = new DistributedBarrier(second, "/barrier");
        setter.setBarrier();
        that(!waiter.waitOnBarrier(300, TimeUnit.MILLISECONDS), "the barrier does not hold");
        CountDownLatch through = new CountDownLatch(1);
        Thread thread = new Thread(() -> {
            try {
                waiter.waitOnBarrier();
                through.countDown();
            } catch (Exception problem) {
                problem.printStackTrace();
            }
        });
        thread.start();
        setter.removeBarrier();
        that(through.await(60, TimeUnit.SECONDS), "still waiting at a removed barrier");
    }

    private static void doubleBarrier(CuratorFramework first, CuratorFramework second) throws Exception {
        AtomicInteger entered = new AtomicInteger();
        List<Integer> seen = Collections.synchronizedList(new ArrayList<>());
        List<Thread> threads = new ArrayList<>();
        for (CuratorFramework client : List.of(first, second, first)) {
            Thread thread = new Thread(() -> {
                DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client, "/double", 3);
                try {
                    entered.incrementAndGet();
                    barrier.enter();
                    seen.add(entered.get());
                    barrier.leave();
                    seen.add(seen.size() >= 3 ? 3 : -1);
                } catch (Exception problem) {
                    problem.printStackTrace();
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        equal(List.of(3, 3, 3, 3, 3, 3), seen);
    }

    private static final QueueSerializer<String> TEXT = new QueueSerializer<>() {
        @Override
        public byte[] serialize(String item) {
            return bytes(item);
        }

        @Override
        public String deserialize(byte[] data) {
            return text(data);
        }
    };

    private static QueueConsumer<String> into(BlockingQueue<String> items) {
        return new QueueConsumer<>() {
            @Override
            public void consumeMessage(String message) {
                items.add(message);
            }

            @Override
            public void stateChanged(CuratorFramework client, ConnectionState state) {
                // The check fails by what is missing.
            }
        };
    }

    private static void queue(CuratorFramework first, CuratorFramework second) throws Exception {
        BlockingQueue<String> items = new LinkedBlockingQueue<>();
        try (DistributedQueue<String> in = QueueBuilder.builder(first, null, TEXT, "/queue").buildQueue();
                DistributedQueue<String> out = QueueBuilder.builder(second, into(items), TEXT, "/queue").lockPath("/queue-locks").buildQueue()) {
            in.start();
            List<String> expected = new ArrayList<>();
            for (int index = 0; index < 50; index++) {
                in.put("item " + index);
                expected.add("item " + index);
            }
            that(in.flushPuts(60, TimeUnit.SECONDS), "not all were put");
            out.start();
            List<String> found = new ArrayList<>();
            for (int index = 0; index < 50; index++) {
                found.add(items.poll(60, TimeUnit.SECONDS));
            }
            equal(expected, found);
            eventually("the queue is empty", () -> first.getChildren().forPath("/queue").isEmpty());
        }
    }

    private static void priorityQueue(CuratorFramework first, CuratorFramework second) throws Exception {
        BlockingQueue<String> items = new LinkedBlockingQueue<>();
        try (DistributedPriorityQueue<String> in = QueueBuilder.builder(first, null, TEXT, "/priority").buildPriorityQueue(0);
                DistributedPriorityQueue<String> out = QueueBuilder.builder(second, into(items), TEXT, "/priority").buildPriorityQueue(0)) {
            in.start();
            for (int priority : List.of(5, 1, 3, -2, 4)) {
                in.put("p" + priority, priority);
            }
            that(in.flushPuts(60, TimeUnit.SECONDS), "not all were put");
            out.start();
            for (int priority : List.of(-2, 1, 3, 4, 5)) {
                equal("p" + priority, items.poll(60, TimeUnit.SECONDS));
            }
        }
    }

    private static void persistentNode(CuratorFramework first, CuratorFramework second) throws Exception {
        try (PersistentNode node = new PersistentNode(first, CreateMode.EPHEMERAL, false, "/persistent", bytes("here"))) {
            node.start();
            that(node.waitForInitialCreate(60, TimeUnit.SECONDS), "never created");
            long created = second.checkExists().forPath("/persistent").getCzxid();
            second.delete().forPath("/persistent");
            eventually("it comes back", () -> {
                Stat stat = second.checkExists().forPath("/persistent");
                return stat != null && stat.getCzxid() > created;
            });
            equal("here", text(second.getData().forPath("/persistent")));
            node.setData(bytes("new"));
            eventually("its data moves", () -> "new".equals(text(second.getData().forPath("/persistent"))));
        }
        equal(null, second.checkExists().forPath("/persistent"));
    }

    private static void expiry() throws Exception {
        String namespace = "curator-" + UUID.randomUUID();
        try (CuttingProxy proxy = new CuttingProxy(SERVER);
                CuratorFramework first = open(proxy.address(), namespace, 1500);
                CuratorFramework second = open(SERVER, namespace, SESSION_TIMEOUT_MS);
                PersistentNode node = new PersistentNode(first, CreateMode.EPHEMERAL, false, "/node", bytes("here"));
                LeaderLatch one = new LeaderLatch(first, "/latch", "one");
                LeaderLatch two = new LeaderLatch(second, "/latch", "two")) {
            node.start();
            that(node.waitForInitialCreate(60, TimeUnit.SECONDS), "never created");
            one.start();
            that(one.await(60, TimeUnit.SECONDS), "nobody leads");
            two.start();
            long owner = second.checkExists().forPath("/node").getEphemeralOwner();
            proxy.isolate();
            that(two.await(60, TimeUnit.SECONDS), "the lost leader's latch never expired");
            eventually("the lost leader knows", () -> !one.hasLeadership());
            eventually("the node goes with its session", () -> second.checkExists().forPath("/node") == null);
            proxy.heal();
            eventually("the node comes back in a new session", () -> {
                Stat stat = second.checkExists().forPath("/node");
                return stat != null && stat.getEphemeralOwner() != owner;
            });
            eventually("the lost leader takes part again", () -> two.getParticipants().size() == 2);
        }
    }

    private static void ttlNode(CuratorFramework first, CuratorFramework second) throws Exception {
        try (PersistentTtlNode node = new PersistentTtlNode(first, "/ttl", 3000, bytes("here"))) {
            node.start();
            that(node.waitForInitialCreate(60, TimeUnit.SECONDS), "never created");
            Thread.sleep(5000);
            that(second.checkExists().forPath("/ttl") != null, "gone although it was touched");
        }
        eventually("it goes when nobody touches it", () -> second.checkExists().forPath("/ttl") == null);
    }

    private static void group(CuratorFramework first, CuratorFramework second) throws Exception {
        GroupMember one = new GroupMember(first, "/group", "one", bytes("1"));
        try (GroupMember two = new GroupMember(second, "/group", "two", bytes("2"))) {
            one.start();
            two.start();
            eventually("both see both", () -> one.getCurrentMembers().size() == 2 && two.getCurrentMembers().size() == 2);
            equal("1", text(two.getCurrentMembers().get("one")));
            one.close();
            eventually("one left", () -> two.getCurrentMembers().keySet().equals(Set.of("two")));
        }
    }

    private static void sharedCount(CuratorFramework first, CuratorFramework second) throws Exception {
        try (SharedCount one = new SharedCount(first, "/count", 10); SharedCount two = new SharedCount(second, "/count", 10)) {
            one.start();
            two.start();
            equal(10, one.getCount());
            VersionedValue<Integer> old = two.getVersionedValue();
            one.setCount(11);
            eventually("the other sees it", () -> two.getCount() == 11);
            that(!two.trySetCount(old, 99), "a stale version was taken");
            that(two.trySetCount(two.getVersionedValue(), 12), "a fresh version was refused");
            eventually("the first sees it", () -> one.getCount() == 12);
        }
    }

    private static void atomicLong(CuratorFramework first, CuratorFramework second) throws Exception {
        RetryPolicy retries = new ExponentialBackoffRetry(5, 29);
        List<Thread> threads = new ArrayList<>();
        for (CuratorFramework client : List.of(first, second)) {
            Thread thread = new Thread(() -> {
                DistributedAtomicLong number = new DistributedAtomicLong(client, "/number", retries);
                try {
                    for (int round = 0; round < 50; round++) {
                        AtomicValue<Long> value = number.increment();
                        while (!value.succeeded()) {
                            value = number.increment();
                        }
                    }
                } catch (Exception problem) {
                    problem.printStackTrace();
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        equal(100L, new DistributedAtomicLong(first, "/number", retries).get().postValue());
    }

    private static ServiceInstance<String> instance(String id, int port) throws Exception {
        return ServiceInstance.<String>builder().name("shop").id(id).address("127.0.0.1").port(port).payload("p" + port).build();
    }

    private static void discovery(CuratorFramework first, CuratorFramework second) throws Exception {
        ServiceInstance<String> own = instance("a", 1);
        try (ServiceDiscovery<String> server = ServiceDiscoveryBuilder.builder(String.class).client(first).basePath("/services").thisInstance(own).build();
                ServiceDiscovery<String> client = ServiceDiscoveryBuilder.builder(String.class).client(second).basePath("/services").build()) {
            server.start();
            client.start();
            server.registerService(instance("b", 2));
            eventually("both are found", () -> client.queryForInstances("shop").size() == 2);
            equal("p2", client.queryForInstance("shop", "b").getPayload());
            equal(List.of("shop"), new ArrayList<>(client.queryForNames()));
            try (ServiceProvider<String> provider = client.serviceProviderBuilder().serviceName("shop").build()) {
                provider.start();
                eventually("the provider sees both", () -> provider.getAllInstances().size() == 2);
                server.updateService(instance("b", 3));
                eventually("an update arrives", () -> provider.getAllInstances().stream().anyMatch(found -> found.getPort() == 3));
                server.unregisterService(own);
                eventually("one left", () -> provider.getAllInstances().size() == 1);
            }
        }
        eventually("the rest leaves with its server", () -> second.getChildren().forPath("/services/shop").isEmpty());
    }

    private static void async(CuratorFramework first, CuratorFramework second) throws Exception {
        AsyncCuratorFramework async = AsyncCuratorFramework.wrap(first);
        String data = async.create().forPath("/async", bytes("1")).thenCompose(path -> async.setData().forPath(path, bytes("2")))
                .thenCompose(stat -> async.getData().forPath("/async")).thenApply(Recipes::text)
                .toCompletableFuture().get(60, TimeUnit.SECONDS);
        equal("2", data);
        CountDownLatch fired = new CountDownLatch(1);
        async.watched().checkExists().forPath("/async").event().thenAccept(event -> fired.countDown());
        eventually("the watch is set and fires", () -> {
            second.setData().forPath("/async", bytes("3"));
            return fired.await(100, TimeUnit.MILLISECONDS);
        });
    }

    private static void authorization() throws Exception {
        RetryPolicy retries = new ExponentialBackoffRetry(100, 10);
        try (CuratorFramework owner = CuratorFrameworkFactory.builder().connectString(SERVER).retryPolicy(retries)
                        .sessionTimeoutMs((int) Duration.ofSeconds(30).toMillis()).authorization("digest", bytes("curator:secret")).build();
                CuratorFramework stranger = open(SERVER, null, SESSION_TIMEOUT_MS)) {
            owner.start();
            String path = "/curator-" + UUID.randomUUID();
            owner.create().withACL(ZooDefs.Ids.CREATOR_ALL_ACL).forPath(path, bytes("x"));
            List<ACL> access = owner.getACL().forPath(path);
            equal(1, access.size());
            that(access.get(0).getId().getId().startsWith("curator:"), "not the creator's identity");
            fails(KeeperException.NoAuthException.class, () -> stranger.getData().forPath(path));
            equal("x", text(owner.getData().forPath(path)));
            owner.delete().forPath(path);
        }
    }
}

package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * A Kafka cluster of two brokers whose metadata lie on the ensemble: what its users do, and what becomes of it when brokers and
 * the ensemble's servers end. One check builds on the others; each looks at Kafka through its clients, and at the znodes.
 */
public final class Kafka {
    private static final String TOPIC = "orders";
    /** Of a committed sequence of records, which a consumer must find complete and in order. */
    private static final int RECORDS = 2_000;

    private final Brokers brokers;
    private final ZooKeeper zookeeper;
    private Admin admin;

    private Kafka(String ensemble) throws Exception {
        brokers = new Brokers(ensemble, 2);
        zookeeper = new ZooKeeper(ensemble, 60_000, event -> { });
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks();
        Kafka kafka = new Kafka(Ensemble.all());
        checks.check("brokers register, one of them is the controller", kafka::brokersRegister);
        checks.check("a topic is made, all its replicas are in sync", kafka::topicIsMade);
        checks.check("records written with acks=all are read by a group, which goes on where it was", kafka::recordsAreRead);
        checks.check("a transaction that is committed is read, one that is aborted is not", kafka::transactions);
        checks.check("settings of topics and brokers, quotas and credentials are changed", kafka::settings);
        checks.check("access control lists are made, found and deleted", kafka::accessControl);
        checks.check("partitions are added, reassigned, and their leaders elected", kafka::partitions);
        checks.check("the controller is killed: the other broker takes over", kafka::controllerIsKilled);
        checks.check("a broker is stopped: it hands over, and is gone at once", kafka::brokerIsStopped);
        checks.check("the ensemble's leader is killed: no broker loses its session, work goes on", kafka::leaderIsKilled);
        checks.check("the whole ensemble is restarted: no broker loses its session", kafka::ensembleIsRestarted);
        checks.check("a topic is deleted", kafka::topicIsDeleted);
        checks.finish();
    }

    private void brokersRegister() throws Exception {
        brokers.startAll();
        admin = Admin.create(Map.of("bootstrap.servers", brokers.addresses(), "request.timeout.ms", "60000"));
        eventually("both brokers are in the cluster", () -> registered().equals(Set.of("1", "2")) && nodes().equals(Set.of(1, 2)));
        eventually("there is a controller", () -> zookeeper.exists(path("/controller"), false) != null);
        eventually("clients know of it", () -> admin.describeCluster().controller().get().id() == controller());
        equal(1, controllerEpoch());
        that(text("/cluster/id").contains(admin.describeCluster().clusterId().get()), "the cluster has the id of the znode");
    }

    private void topicIsMade() throws Exception {
        admin.createTopics(List.of(new NewTopic(TOPIC, 6, (short) 2))).all().get();
        awaitInSync(2);
        equal(6, zookeeper.getChildren(path("/brokers/topics/" + TOPIC + "/partitions"), false).size());
        equal(Optional.of(TOPIC), admin.listTopics().names().get().stream().filter(TOPIC::equals).findAny());
    }

    private void recordsAreRead() throws Exception {
        write("first", RECORDS);
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of(TOPIC));
            equal(expected("first", RECORDS), read(consumer, RECORDS));
            consumer.commitSync();
        }
        write("second", 10);
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of(TOPIC));
            equal(expected("second", 10), read(consumer, 10));
            consumer.commitSync();
        }
        equal(Set.of("readers"), groups());
    }

    private void transactions() throws Exception {
        try (KafkaProducer<String, String> producer = producer(Map.of("transactional.id", "teller"))) {
            producer.initTransactions();
            for (String outcome : List.of("aborted", "committed")) {
                producer.beginTransaction();
                for (int number = 0; number < 100; number++) {
                    producer.send(new ProducerRecord<>(TOPIC, String.valueOf(number), outcome + " " + number));
                }
                if (outcome.equals("committed")) {
                    producer.commitTransaction();
                } else {
                    producer.flush();
                    producer.abortTransaction();
                }
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of(TOPIC));
            equal(expected("committed", 100), read(consumer, 100));
            consumer.commitSync();
        }
        that(text("/latest_producer_id_block").contains("block_end"), "producers' numbers are given out in blocks");
    }

    private void settings() throws Exception {
        set(ConfigResource.Type.TOPIC, TOPIC, "retention.ms", "7200000");
        // All brokers' is the setting of none.
        set(ConfigResource.Type.BROKER, "", "background.threads", "5");
        for (String broker : List.of("1", "2")) {
            awaitSetting(ConfigResource.Type.BROKER, broker, "background.threads", "5");
        }

        ClientQuotaEntity client = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, "glutton"));
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(client,
                List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6))))).all().get();
        eventually("the quota is in force",
                () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().equals(Map.of(client, Map.of("producer_byte_rate", 1e6))));

        admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("alice",
                new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all().get();
        eventually("the user is known", () -> admin.describeUserScramCredentials().users().get().equals(List.of("alice")));
        // Brokers learn of each change by a znode with a number.
        that(zookeeper.getChildren(path("/config/changes"), false).size() >= 4, "changes are told");
    }

    private void accessControl() throws Exception {
        AclBinding binding = new AclBinding(new ResourcePattern(ResourceType.TOPIC, TOPIC, PatternType.LITERAL),
                new AccessControlEntry("User:bob", "*", AclOperation.READ, AclPermissionType.ALLOW));
        admin.createAcls(List.of(binding)).all().get();
        eventually("the list is in force", () -> Set.copyOf(admin.describeAcls(AclBindingFilter.ANY).values().get()).equals(Set.of(binding)));
        that(text("/kafka-acl/Topic/" + TOPIC).contains("User:bob"), "the list is in its znode");
        admin.deleteAcls(List.of(binding.toFilter())).all().get();
        eventually("the list is gone", () -> admin.describeAcls(AclBindingFilter.ANY).values().get().isEmpty());
        eventually("its znode is gone", () -> zookeeper.exists(path("/kafka-acl/Topic/" + TOPIC), false) == null);
    }

    private void partitions() throws Exception {
        admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(8))).all().get();
        eventually("there are eight partitions", () -> described().size() == 8);
        TopicPartition moved = new TopicPartition(TOPIC, 7);
        int from = described().get(7).leader().id();
        int target = Brokers.other(from);
        admin.alterPartitionReassignments(Map.of(moved, Optional.of(new NewPartitionReassignment(List.of(target))))).all().get();
        eventually("it has moved", () -> replicas(7).equals(List.of(target)) && leader(7) == target);
        admin.alterPartitionReassignments(Map.of(moved, Optional.of(new NewPartitionReassignment(List.of(from, target))))).all().get();
        eventually("it has its replica again", () -> replicas(7).equals(List.of(from, target)));
        awaitInSync(2);
        equal(Map.of(), admin.listPartitionReassignments().reassignments().get());
        if (leader(7) != from) {
            admin.electLeaders(ElectionType.PREFERRED, Set.of(moved)).all().get();
        }
        eventually("its first replica leads", () -> leader(7) == from);
    }

    private void controllerIsKilled() throws Exception {
        int controller = controller();
        int epoch = controllerEpoch();
        int other = Brokers.other(controller);
        brokers.kill(controller);
        write("alone", RECORDS);
        eventually("the other is the controller", () -> controller() == other);
        equal(epoch + 1, controllerEpoch());
        eventually("it leads all partitions", () -> described().stream().allMatch(partition -> partition.leader() != null && partition.leader().id() == other));
        equal(Set.of(String.valueOf(other)), registered());
        brokers.start(controller);
        awaitInSync(2);
        equal(other, controller());
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of(TOPIC));
            equal(expected("alone", RECORDS), read(consumer, RECORDS));
            consumer.commitSync();
        }
    }

    private void brokerIsStopped() throws Exception {
        int other = controller();
        int stopped = Brokers.other(other);
        brokers.stop(stopped);
        equal(Set.of(String.valueOf(other)), registered());
        write("in order", 100);
        brokers.start(stopped);
        awaitInSync(2);
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of(TOPIC));
            equal(expected("in order", 100), read(consumer, 100));
            consumer.commitSync();
        }
    }

    private void leaderIsKilled() throws Exception {
        Set<Long> births = births();
        int epoch = controllerEpoch();
        int leader = Ensemble.leader();
        Ensemble.kill(leader);
        admin.createTopics(List.of(new NewTopic("meanwhile", 2, (short) 2))).all().get();
        write("meanwhile", 100);
        Ensemble.start(leader);
        admin.deleteTopics(List.of("meanwhile")).all().get();
        equal(births, births());
        equal(epoch, controllerEpoch());
    }

    private void ensembleIsRestarted() throws Exception {
        Set<Long> births = births();
        int epoch = controllerEpoch();
        try (KafkaProducer<String, String> producer = producer(Map.of())) {
            // It has its number, and knows the leaders: for both the brokers may have to ask.
            write(producer, "with", 100);
            for (int member = 1; member <= 3; member++) {
                Ensemble.stop(member);
            }
            // Kafka does without for a while.
            write(producer, "without", 100);
        }
        Ensemble.start(1, 2, 3);
        admin.createTopics(List.of(new NewTopic("afterwards", 2, (short) 2))).all().get();
        equal(births, births());
        equal(epoch, controllerEpoch());
    }

    private void topicIsDeleted() throws Exception {
        admin.deleteTopics(List.of(TOPIC)).all().get();
        eventually("it is gone", () -> !admin.listTopics().names().get().contains(TOPIC));
        eventually("its znodes are gone", () -> zookeeper.exists(path("/brokers/topics/" + TOPIC), false) == null);
        eventually("nothing is left to do", () -> zookeeper.getChildren(path("/admin/delete_topics"), false).isEmpty());
        brokers.stop(1);
        brokers.stop(2);
        equal(Set.of(), registered());
        equal(null, zookeeper.exists(path("/controller"), false));
    }

    private KafkaProducer<String, String> producer(Map<String, String> more) {
        Map<String, Object> settings = new java.util.HashMap<>(Map.of("bootstrap.servers", brokers.addresses(), "acks", "all",
                "delivery.timeout.ms", "100000", "request.timeout.ms", "30000"));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String group) {
        return new KafkaConsumer<>(Map.of("bootstrap.servers", brokers.addresses(), "group.id", group, "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "isolation.level", "read_committed"), new StringDeserializer(), new StringDeserializer());
    }

    /** Writes so many records, and has them all acknowledged. */
    private void write(String what, int count) throws Exception {
        try (KafkaProducer<String, String> producer = producer(Map.of())) {
            write(producer, what, count);
        }
    }

    private static void write(KafkaProducer<String, String> producer, String what, int count) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            sent.add(producer.send(new ProducerRecord<>(TOPIC, String.valueOf(number), what + " " + number)));
        }
        for (Future<RecordMetadata> one : sent) {
            one.get();
        }
    }

    private static Set<String> expected(String what, int count) {
        Set<String> expected = new HashSet<>();
        for (int number = 0; number < count; number++) {
            expected.add(what + " " + number);
        }
        return expected;
    }

    /** Reads until so many have come; a record that comes twice, or one too many, is a failure. */
    private static Set<String> read(KafkaConsumer<String, String> consumer, int count) throws Exception {
        Set<String> found = new HashSet<>();
        eventually(count + " records are read", () -> {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                that(found.add(record.value()), "twice: " + record.value());
            }
            return found.size() >= count;
        });
        return found;
    }

    private void set(ConfigResource.Type type, String name, String setting, String value) throws Exception {
        ConfigResource resource = new ConfigResource(type, name);
        Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry(setting, value), AlterConfigOp.OpType.SET));
        admin.incrementalAlterConfigs(Map.of(resource, change)).all().get();
        awaitSetting(type, name, setting, value);
    }

    private void awaitSetting(ConfigResource.Type type, String name, String setting, String value) throws Exception {
        ConfigResource resource = new ConfigResource(type, name);
        eventually(setting + " is in force", () -> {
            Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            ConfigEntry entry = config.get(setting);
            return entry != null && entry.value().equals(value);
        });
    }

    private Set<String> groups() throws Exception {
        Set<String> groups = new TreeSet<>();
        admin.listConsumerGroups().all().get().forEach(group -> groups.add(group.groupId()));
        return groups;
    }

    private Set<Integer> nodes() throws Exception {
        Set<Integer> nodes = new TreeSet<>();
        try {
            admin.describeCluster().nodes().get(5, TimeUnit.SECONDS).forEach(node -> nodes.add(node.id()));
        } catch (java.util.concurrent.TimeoutException | java.util.concurrent.ExecutionException unknown) {
            // They are starting.
        }
        return nodes;
    }

    private List<TopicPartitionInfo> described() throws Exception {
        TopicDescription description = admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC);
        return description.partitions();
    }

    private int leader(int partition) throws Exception {
        return Optional.ofNullable(described().get(partition).leader()).map(node -> node.id()).orElse(-1);
    }

    private List<Integer> replicas(int partition) throws Exception {
        return described().get(partition).replicas().stream().map(node -> node.id()).toList();
    }

    /** Every partition has a leader, and so many replicas that are in sync. */
    private void awaitInSync(int count) throws Exception {
        eventually(count + " replicas of each partition are in sync", () -> {
            try {
                return described().stream().allMatch(partition -> partition.leader() != null && partition.isr().size() == count);
            } catch (java.util.concurrent.ExecutionException unknown) {
                if (unknown.getCause() instanceof KafkaException) {
                    return false;
                }
                throw unknown;
            }
        });
    }

    private static String path(String below) {
        return Brokers.ROOT + below;
    }

    private String text(String below) throws Exception {
        return new String(zookeeper.getData(path(below), false, null), StandardCharsets.UTF_8);
    }

    private Set<String> registered() throws Exception {
        try {
            return Set.copyOf(zookeeper.getChildren(path("/brokers/ids"), false));
        } catch (KeeperException.NoNodeException none) {
            return Set.of();
        }
    }

    /** The broker that is the controller; 0 while there is none. */
    private int controller() throws Exception {
        try {
            Matcher id = Pattern.compile("\"brokerid\":(\\d+)").matcher(text("/controller"));
            that(id.find(), "the controller's znode names it");
            return Integer.parseInt(id.group(1));
        } catch (KeeperException.NoNodeException none) {
            return 0;
        }
    }

    private int controllerEpoch() throws Exception {
        return Integer.parseInt(text("/controller_epoch"));
    }

    /** When the brokers' znodes were made: others, if one has had to register anew. */
    private Set<Long> births() throws Exception {
        Set<Long> births = new TreeSet<>();
        for (String broker : List.of("1", "2")) {
            Stat stat = new Stat();
            zookeeper.getData(path("/brokers/ids/" + broker), false, stat);
            births.add(stat.getCzxid());
        }
        return births;
    }
}

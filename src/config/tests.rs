use super::*;
use crate::config::key::Setter;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

/// Loads `text` as a file named `zoo.cfg`, with other files, environment variables and overrides beside it.
#[derive(Default, Clone, Copy)]
struct Scene<'a> {
    text: &'a str,
    files: &'a [(&'a str, &'a str)],
    environment: &'a [(&'a str, &'a str)],
    overrides: &'a [&'a str],
}

impl Scene<'_> {
    fn load(&self) -> Result<Loaded, ConfigError> {
        let overrides: Vec<String> = self.overrides.iter().map(|text| (*text).to_owned()).collect();
        let look_up = |pairs: &[(&str, &str)], name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        load(&Sources {
            base: Base::File {
                path: Path::new("zoo.cfg"),
                text: self.text,
            },
            environment: &|name| look_up(self.environment, name),
            overrides: &overrides,
            read: &|path| match path.to_str() {
                Some("unreadable") => Err("permission denied".to_owned()),
                Some(name) => Ok(look_up(self.files, name)),
                None => Ok(None),
            },
        })
    }

    /// The configuration; the scene must be without problems.
    fn config(&self) -> Config {
        self.load()
            .unwrap_or_else(|error| panic!("{:?}\n{error}", self.text))
            .config
    }

    fn notices(&self) -> Vec<String> {
        let loaded = self.load().unwrap_or_else(|error| panic!("{:?}\n{error}", self.text));
        loaded
            .notices
            .iter()
            .map(|notice| format!("{:?} {notice}", notice.severity))
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        let error = self.load().map(|loaded| loaded.config).unwrap_err();
        error.problems.iter().map(ToString::to_string).collect()
    }
}

fn scene(text: &str) -> Scene<'_> {
    Scene {
        text,
        ..Scene::default()
    }
}

const SAMPLE: &str = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/data\nclientPort=2181\n";

#[test]
fn a_sample_file_loads_without_a_word() {
    let loaded = scene(SAMPLE).load().unwrap();
    assert_eq!(loaded.notices, []);
    assert_eq!(loaded.config.listeners.client, Some(Address::any(2181)));
    assert_eq!(loaded.config.storage.data_log_dir, Path::new("/data"));
    assert_eq!(
        (
            loaded.config.sessions.min_timeout_ms,
            loaded.config.sessions.max_timeout_ms
        ),
        (4000, 40_000)
    );
    assert_eq!(
        loaded.config.origin,
        Origin {
            file: Some("zoo.cfg".into()),
            text: SAMPLE.to_owned()
        }
    );
}

#[test]
fn the_embedded_default_is_what_loading_nothing_gives() {
    let sources = Sources {
        base: Base::Embedded,
        environment: &|_| None,
        overrides: &[],
        read: &|_| Ok(None),
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.notices, []);
    assert_eq!(loaded.config, Config::embedded_default());
    assert!(
        !loaded.config.admin.required,
        "a taken port 8080 must not keep a new user's server from starting"
    );
}

/// A key, a value that is not its default, and what must have become of it.
type Case = (&'static str, &'static str, fn(&Config) -> bool);

const LISTENERS: &[Case] = &[
    ("clientPort", "2182", |c| c.listeners.client == Some(Address::any(2182))),
    ("clientPortAddress", "127.0.0.1", |c| {
        c.listeners.client.as_ref().unwrap().to_string() == "127.0.0.1:2181"
    }),
    ("secureClientPort", "2281", |c| {
        c.listeners.secure_client == Some(Address::any(2281))
    }),
    ("secureClientPortAddress", "::1", |c| {
        c.listeners
            .secure_client
            .as_ref()
            .is_some_and(|address| address.to_string() == "[::1]:3281")
    }),
    ("clientPortListenBacklog", "17", |c| {
        c.listeners.backlog == NonZeroU32::new(17)
    }),
    ("clientTcpKeepAlive", "true", |c| c.listeners.client_tcp_keep_alive),
    ("tickTime", "500", |c| {
        c.sessions.tick_ms == 500 && c.sessions.max_timeout_ms == 10_000
    }),
    ("minSessionTimeout", "1", |c| c.sessions.min_timeout_ms == 1),
    ("maxSessionTimeout", "900000", |c| c.sessions.max_timeout_ms == 900_000),
    ("localSessionsEnabled", "true", |c| c.sessions.local),
    ("localSessionsUpgradingEnabled", "TRUE", |c| c.sessions.local_upgrading),
    ("readonlymode.enabled", "true", |c| {
        c.reads.read_only_mode && c.four_letter_words.allows("isro")
    }),
    ("linearizableReads", "true", |c| c.reads.linearizable),
    ("jute.maxbuffer", "0x9fffff", |c| c.limits.max_frame_bytes == 0x9f_ffff),
    ("maxClientCnxns", "0", |c| {
        c.limits.max_connections_per_address.is_none()
    }),
    ("maxCnxns", "9", |c| c.limits.max_connections == NonZeroU32::new(9)),
    ("globalOutstandingLimit", "5", |c| {
        c.limits.max_outstanding_requests == 5
    }),
    ("maxWatchesPerConnection", "10000", |c| {
        c.limits.max_watches_per_connection == NonZeroU32::new(10_000)
    }),
    ("maxWatchesPerZnode", "10001", |c| {
        c.limits.max_watches_per_znode == NonZeroU32::new(10_001)
    }),
    ("watch.fanoutJitterMs", "250", |c| {
        c.limits.watch_fan_out_jitter_ms == 250
    }),
    ("memoryBudget", "2GiB", |c| {
        c.limits.memory_budget == MemoryBudget::Bytes(NonZeroU64::new(2 << 30).unwrap())
    }),
    ("outboundQueue.maxMessages", "7", |c| {
        c.limits.outbound_queue_messages == 7
    }),
    ("outboundQueue.maxBytes", "5000000000", |c| {
        c.limits.outbound_queue_bytes == 5_000_000_000
    }),
    ("outboundQueue.stallTimeoutMs", "8", |c| {
        c.limits.outbound_stall_timeout_ms == 8
    }),
    ("nio.sessionlessCnxnTimeout", "11", |c| {
        c.limits.handshake_timeout_ms == 11
    }),
];

const STORAGE: &[Case] = &[
    ("dataDir", "/elsewhere", |c| {
        c.storage.data_dir == Path::new("/elsewhere")
    }),
    ("dataLogDir", "/log", |c| {
        c.storage.data_log_dir == Path::new("/log") && c.storage.data_dir == Path::new("/data")
    }),
    ("datadir.autocreate", "false", |c| !c.storage.create_directories),
    ("forceSync", "no", |c| !c.storage.force_sync),
    ("fsync.warningthresholdms", "20", |c| c.storage.fsync_warning_ms == 20),
    ("autopurge.snapRetainCount", "4", |c| {
        c.storage.purge.snapshots_kept == 4
    }),
    ("autopurge.purgeInterval", "24", |c| {
        c.storage.purge.interval_hours == NonZeroU32::new(24)
    }),
    ("enforceQuota", "true", |c| c.tree.enforce_quota),
    ("extendedTypesEnabled", "true", |c| c.tree.extended_types),
    ("znode.container.checkIntervalMs", "250", |c| {
        c.tree.container_check_interval_ms == 250
    }),
    ("znode.container.maxPerMinute", "6", |c| {
        c.tree.container_max_per_minute == 6
    }),
    ("znode.container.maxNeverUsedIntervalMs", "3", |c| {
        c.tree.container_max_never_used_ms == NonZeroU32::new(3)
    }),
];

const AUTH: &[Case] = &[
    (
        "authProvider.1",
        "org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        |c| c.auth.providers == BTreeSet::from([AuthProvider::Digest, AuthProvider::Ip, AuthProvider::Sasl]),
    ),
    ("DigestAuthenticationProvider.enabled", "false", |c| {
        !c.auth.providers.contains(&AuthProvider::Digest)
    }),
    (
        "DigestAuthenticationProvider.superDigest",
        "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
        |c| c.auth.super_digest == Some(Secret::new("super:D/InIHSb7yEEbrWz8b9l71RjZJU=")),
    ),
    ("DigestAuthenticationProvider.digestAlg", "SHA-256", |c| {
        c.auth.digest_algorithm == DigestAlgorithm::Sha256
    }),
    ("X509AuthenticationProvider.superUser", "CN=admin", |c| {
        c.auth.x509_super_user.as_deref() == Some("CN=admin")
    }),
    ("superUser", "root", |c| {
        c.auth.sasl_super_users == BTreeSet::from(["root".to_owned()])
    }),
    ("superUser.2", "toor", |c| {
        c.auth.sasl_super_users == BTreeSet::from(["toor".to_owned()])
    }),
    ("skipACL", "yes", |c| c.auth.skip_acl),
    ("enforce.auth.enabled", "true", |c| {
        c.auth.enforced_schemes == Some(BTreeSet::from(["ip".to_owned()]))
    }),
    ("enforce.auth.schemes", "digest, ip", |c| {
        c.auth.enforced_schemes == Some(BTreeSet::from(["digest".to_owned(), "ip".to_owned()]))
    }),
    ("sessionRequireClientSASLAuth", "true", |c| {
        c.auth.enforced_schemes == Some(BTreeSet::from(["sasl".to_owned()]))
    }),
    ("sasl.serverconfig", "Zoo", |c| c.auth.sasl.login_context == "Zoo"),
    ("SASLAuthenticationProvider.superPassword", "abracadabra", |c| {
        sasl_password(c, "super") == Some("abracadabra")
    }),
    ("allowSaslFailedClients", "true", |c| c.auth.sasl.allow_failed),
    ("java.security.auth.login.config", "/jaas", |c| {
        c.auth.sasl.login_config_file.as_deref() == Some(Path::new("/jaas")) && sasl_password(c, "bob") == Some("b0b")
    }),
];

fn store(endpoint: &TlsEndpoint, which: &str, holds: fn(&Store) -> bool) -> bool {
    let store = if which == "key" {
        &endpoint.key_store
    } else {
        &endpoint.trust_store
    };
    store.as_ref().is_some_and(holds)
}

const TLS: &[Case] = &[
    ("ssl.keyStore.location", "/k.jks", |c| {
        store(&c.tls.client, "key", |store| store.location == Path::new("/k.jks"))
    }),
    ("ssl.keyStore.password", "a", |c| {
        store(&c.tls.client, "key", |store| store.password.expose() == "a")
    }),
    ("ssl.keyStore.passwordPath", "/secret", |c| {
        store(&c.tls.client, "key", |store| store.password.expose() == "from the file")
    }),
    ("ssl.keyStore.type", "PKCS12", |c| {
        store(&c.tls.client, "key", |store| store.kind == StoreKind::Pkcs12)
    }),
    ("ssl.trustStore.location", "/t.pem", |c| {
        store(&c.tls.client, "trust", |store| store.kind == StoreKind::Pem)
    }),
    ("ssl.trustStore.password", "b", |c| {
        store(&c.tls.client, "trust", |store| store.password.expose() == "b")
    }),
    ("ssl.trustStore.passwordPath", "/secret", |c| {
        store(&c.tls.client, "trust", |store| {
            store.password.expose() == "from the file"
        })
    }),
    ("ssl.trustStore.type", "bcfks", |c| {
        store(&c.tls.client, "trust", |store| store.kind == StoreKind::Bcfks)
    }),
    ("ssl.protocol", "TLSv1.2", |c| {
        c.tls.client.protocols == BTreeSet::from([TlsVersion::Tls12])
    }),
    ("ssl.enabledProtocols", "TLSv1.3,TLSv1.1", |c| {
        c.tls.client.protocols == BTreeSet::from([TlsVersion::Tls13])
    }),
    ("ssl.clientAuth", "want", |c| {
        c.tls.client.client_auth == ClientAuth::Want
    }),
    ("ssl.quorum.keyStore.location", "/k.p12", |c| {
        store(&c.tls.quorum, "key", |store| store.kind == StoreKind::Pkcs12)
    }),
    ("ssl.quorum.keyStore.password", "a", |c| {
        store(&c.tls.quorum, "key", |store| store.password.expose() == "a")
    }),
    ("ssl.quorum.keyStore.passwordPath", "/secret", |c| {
        store(&c.tls.quorum, "key", |store| store.password.expose() == "from the file")
    }),
    ("ssl.quorum.keyStore.type", "PEM", |c| {
        store(&c.tls.quorum, "key", |store| store.kind == StoreKind::Pem)
    }),
    ("ssl.quorum.trustStore.location", "/t.bcfks", |c| {
        store(&c.tls.quorum, "trust", |store| store.kind == StoreKind::Bcfks)
    }),
    ("ssl.quorum.trustStore.password", "b", |c| {
        store(&c.tls.quorum, "trust", |store| store.password.expose() == "b")
    }),
    ("ssl.quorum.trustStore.passwordPath", "/secret", |c| {
        store(&c.tls.quorum, "trust", |store| {
            store.password.expose() == "from the file"
        })
    }),
    ("ssl.quorum.trustStore.type", "PEM", |c| {
        store(&c.tls.quorum, "trust", |store| store.kind == StoreKind::Pem)
    }),
    ("ssl.quorum.protocol", "TLSv1.3", |c| {
        c.tls.quorum.protocols == BTreeSet::from([TlsVersion::Tls13])
    }),
    ("ssl.quorum.enabledProtocols", "TLSv1.2", |c| {
        c.tls.quorum.protocols == BTreeSet::from([TlsVersion::Tls12])
    }),
    ("ssl.quorum.clientAuth", "none", |c| {
        c.tls.quorum.client_auth == ClientAuth::None
    }),
    ("ssl.authProvider", "sasl", |c| c.tls.client.auth_scheme == "sasl"),
    ("client.portUnification", "true", |c| c.tls.client_port_unification),
    ("sslQuorum", "true", |c| c.tls.quorum_enabled),
    ("portUnification", "true", |c| c.tls.quorum_port_unification),
    ("ssl.quorum.hostnameVerification", "true", |c| c.tls.quorum_host_names),
    ("ssl.quorum.clientHostnameVerification", "false", |c| {
        !c.tls.quorum_caller_host_names
    }),
];

fn ensemble(config: &Config) -> &Ensemble {
    match &config.cluster.membership {
        Membership::Ensemble(ensemble) => ensemble,
        Membership::Standalone => panic!("expected an ensemble"),
    }
}

const CLUSTER: &[Case] = &[
    ("server.3", "c:2888:3888:observer;2183", |c| {
        let server = &ensemble(c).servers[&ServerId::new(3).unwrap()];
        server.to_string() == "c:2888:3888:observer;0.0.0.0:2183" && server.peer_type == PeerType::Observer
    }),
    ("initLimit", "7", |c| c.cluster.init_limit_ticks == 7),
    ("syncLimit", "8", |c| c.cluster.sync_limit_ticks == 8),
    ("electionTimeoutMs", "750", |c| c.cluster.election_timeout_ms == 750),
    ("peerType", "observer", |c| c.cluster.peer_type == PeerType::Observer),
    ("standaloneEnabled", "false", |c| ensemble(c).servers.len() == 1),
    ("reconfigEnabled", "true", |c| c.cluster.reconfig_enabled),
    ("dynamicConfigFile", "/zoo.cfg.dynamic.1000a", |c| {
        ensemble(c).version == 0x1000a && ensemble(c).servers.len() == 2 && c.listeners.client.is_some()
    }),
    ("electionAlg", "3", |_| true),
    ("multiAddress.enabled", "true", |c| {
        ensemble(c).servers[&ServerId::FIRST].addresses.len() == 2
    }),
    ("leaderServes", "no", |c| !c.cluster.leader_serves_clients),
    ("quorumListenOnAllIPs", "true", |c| c.cluster.listen_on_all_addresses),
    ("quorumListenAddress", "[::1]:2889", |c| {
        c.cluster.listen_address.as_ref().map(ToString::to_string).as_deref() == Some("[::1]:2889")
    }),
    ("tcpKeepAlive", "true", |c| c.cluster.tcp_keep_alive),
];

const OPERATION: &[Case] = &[
    ("4lw.commands.whitelist", "ruok, mntr", |c| {
        c.four_letter_words.iter().eq(["mntr", "ruok", "srvr"])
    }),
    ("admin.enableServer", "false", |c| !c.admin.enabled),
    ("admin.serverAddress", "localhost", |c| {
        c.admin.address.host == Host::Name("localhost".to_owned())
    }),
    ("admin.serverPort", "8081", |c| {
        c.admin.address.port == 8081 && c.admin.required
    }),
    ("admin.commandURL", "/zk", |c| c.admin.command_url == "/zk"),
    ("admin.idleTimeout", "99", |c| c.admin.idle_timeout_ms == 99),
    (
        "metricsProvider.className",
        "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
        |c| c.metrics.provider == MetricsProvider::Prometheus,
    ),
    ("metricsProvider.httpHost", "127.0.0.1", |c| {
        c.metrics.address.to_string() == "127.0.0.1:7000"
    }),
    ("metricsProvider.httpPort", "7001", |c| c.metrics.address.port == 7001),
    ("metricsProvider.exportJvmInfo", "false", |c| {
        !c.metrics.export_process_info
    }),
    ("audit.enable", "true", |c| c.audit.enabled),
    ("request_throttle_max_requests", "1", |c| {
        c.throttle.max_requests == NonZeroU32::new(1)
    }),
    ("request_throttle_stall_time", "1", |c| c.throttle.stall_ms == 1),
    ("request_throttle_drop_stale", "false", |c| !c.throttle.drop_stale),
    ("request_stale_latency_check", "true", |c| c.throttle.stale_by_latency),
    ("request_stale_connection_check", "false", |c| {
        !c.throttle.stale_by_connection
    }),
    ("throttled_op_wait_time", "4", |c| {
        c.throttle.throttled_operation_wait_ms == NonZeroU32::new(4)
    }),
    ("largeRequestThreshold", "0", |c| {
        c.throttle.large_request_bytes == Some(0)
    }),
    ("largeRequestMaxBytes", "5", |c| c.throttle.large_request_max_bytes == 5),
    ("connection_throttle_tokens", "6", |c| {
        c.throttle.connections.tokens == NonZeroU32::new(6)
    }),
    ("connection_throttle_fill_time", "7", |c| {
        c.throttle.connections.fill_interval_ms == 7
    }),
    ("connection_throttle_fill_count", "8", |c| {
        c.throttle.connections.fill_tokens == 8
    }),
    ("connection_throttle_freeze_time", "9", |c| {
        c.throttle.connections.freeze_ms == Some(9)
    }),
    ("connection_throttle_drop_increase", "0.5", |c| {
        c.throttle.connections.drop_increase.total_cmp(&0.5).is_eq()
    }),
    ("connection_throttle_drop_decrease", "0.25", |c| {
        c.throttle.connections.drop_decrease.total_cmp(&0.25).is_eq()
    }),
    ("connection_throttle_decrease_ratio", "1", |c| {
        c.throttle.connections.decrease_ratio.total_cmp(&1.0).is_eq()
    }),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    [LISTENERS, STORAGE, AUTH, TLS, CLUSTER, OPERATION]
        .into_iter()
        .flatten()
}

/// Other settings that a key needs beside it to have a meaning.
fn companions(key: &str) -> &'static str {
    match key {
        "secureClientPortAddress" => "secureClientPort=3281\n",
        "enforce.auth.enabled" => "enforce.auth.schemes=ip\n",
        "enforce.auth.schemes" => "enforce.auth.enabled=true\n",
        "sessionRequireClientSASLAuth" => {
            "authProvider.x=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n"
        }
        "SASLAuthenticationProvider.superPassword" => "java.security.auth.login.config=/jaas\n",
        key if key.starts_with("ssl.") && key.contains("Store.") && !key.ends_with("location") => {
            "ssl.keyStore.location=/k.jks\nssl.trustStore.location=/t.jks\n\
             ssl.quorum.keyStore.location=/k.jks\nssl.quorum.trustStore.location=/t.jks\n"
        }
        "server.3" => "server.1=a:2888:3888\nserver.2=b:2888:3888\n",
        "peerType" => "server.1=a:2888:3888:observer\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n",
        "standaloneEnabled" => "server.1=a:2888:3888\n",
        "multiAddress.enabled" => "server.1=a:2888:3888|b:2888:3888\nserver.2=c:2888:3888\n",
        _ => "",
    }
}

const JAAS: &str = "Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_super=x user_bob=b0b; };\n\
                    Kerberos { com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true; };\n";

fn sasl_password<'a>(config: &'a Config, user: &str) -> Option<&'a str> {
    Some(config.auth.sasl.users.as_ref()?.get(user)?.expose())
}

const FILES: &[(&str, &str)] = &[
    ("/data/myid", "1\n"),
    ("/secret", "from the file\n"),
    ("/jaas", JAAS),
    ("/zoo.cfg.dynamic.1000a", "server.1=a:2888:3888\nserver.2=b:2888:3888\n"),
];

#[test]
fn every_key_set_to_another_value_arrives_in_its_field_from_file_command_line_and_environment() {
    for (key, value, arrived) in cases() {
        let base = format!("{SAMPLE}{}", companions(key));
        let base = Scene {
            text: &base,
            files: FILES,
            ..Scene::default()
        };
        let in_file = format!("{}{key}={value}\n", base.text);
        assert!(arrived(&Scene { text: &in_file, ..base }.config()), "{key} in zoo.cfg");
        let property = format!("-Dzookeeper.{key}={value}");
        for argument in [
            property.as_str(),
            &format!("-D{key}={value}"),
            &format!("{key}={value}"),
        ] {
            assert!(
                arrived(
                    &Scene {
                        overrides: &[argument],
                        ..base
                    }
                    .config()
                ),
                "{argument}"
            );
        }
        // Flags of a JVM are split at blanks, so that a value with one cannot be given there.
        if !value.contains(' ') {
            let scene = Scene {
                environment: &[("JVMFLAGS", &format!("-Xmx1g {property}"))],
                ..base
            };
            assert!(arrived(&scene.config()), "{property} in JVMFLAGS");
        }
        let unset = Scene {
            text: SAMPLE,
            files: FILES,
            ..Scene::default()
        };
        let proves_something = matches!(*key, "electionAlg" | "dynamicConfigFile")
            || !companions(key).is_empty()
            || !arrived(&unset.config());
        let structural = matches!(*key, "standaloneEnabled" | "dynamicConfigFile");
        assert!(
            structural || proves_something,
            "{key}: the case also holds where it is not set"
        );
    }
}

#[test]
fn every_row_that_is_read_has_a_case_above() {
    for row in table::rows().filter(|row| !matches!(row.setter, Setter::Ignored)) {
        assert!(cases().any(|(key, ..)| row.matches(key)), "{} has no case", row.name);
    }
}

#[test]
fn the_stated_defaults_are_the_defaults() {
    let unset = scene(SAMPLE).config();
    for row in table::rows().filter(|row| !matches!(row.setter, Setter::Ignored) && !row.default.is_empty()) {
        // The sample gives another.
        if row.name == "tickTime" {
            continue;
        }
        let mut set = scene(&format!("{SAMPLE}{}={}\n", row.name, row.default)).config();
        set.origin.clone_from(&unset.origin);
        // That the port was written down is the difference.
        set.admin.required = false;
        assert_eq!(set, unset, "{}", row.name);
    }
    assert_eq!(
        scene("dataDir=/data\nclientPort=2181\n").config().sessions,
        Sessions::default()
    );
}

#[test]
fn every_row_is_named_once_and_says_something() {
    let mut names = BTreeSet::new();
    for row in table::rows() {
        assert!(names.insert(row.name), "{} stands twice", row.name);
        assert!(!row.help.is_empty(), "{}", row.name);
        assert_eq!(
            row.support == Support::Honoured,
            !matches!(row.setter, Setter::Ignored) && row.support != Support::NotYet
        );
    }
    let text = render_reference();
    for row in table::rows() {
        assert!(
            text.lines().any(|line| line.split(' ').next() == Some(row.name)),
            "{} is not printed",
            row.name
        );
    }
}

#[test]
fn wrong_values_name_file_line_key_value_and_what_would_be_right() {
    let java_int = "from 1 to 2147483647";
    let cases: &[(&str, String)] = &[
        (
            "tickTime=abc",
            format!("tickTime=abc: expected a number of milliseconds {java_int}"),
        ),
        (
            "tickTime=0",
            format!("tickTime=0: expected a number of milliseconds {java_int}"),
        ),
        (
            "tickTime=-1",
            format!("tickTime=-1: expected a number of milliseconds {java_int}"),
        ),
        (
            "tickTime=",
            format!("tickTime=: expected a number of milliseconds {java_int}"),
        ),
        (
            "clientPort=70000",
            "clientPort=70000: expected a TCP port from 0 to 65535, where 0 lets the system choose".into(),
        ),
        (
            "clientPortAddress=a b",
            "clientPortAddress=a b: expected an IP address or a host name".into(),
        ),
        (
            "maxClientCnxns=many",
            "maxClientCnxns=many: expected a number from 1 to 2147483647, or 0 for none".into(),
        ),
        ("minSessionTimeout=x", {
            "minSessionTimeout=x: expected a number of milliseconds from 0 to 2147483647, or -1 for none".into()
        }),
        (
            "localSessionsEnabled=yes",
            "localSessionsEnabled=yes: expected true or false".into(),
        ),
        ("dataDir=", "dataDir=: expected a text that is not empty".into()),
        ("memoryBudget=101%", {
            "memoryBudget=101%: expected a size such as 2GiB, or a share of the memory such as 50%".into()
        }),
        ("DigestAuthenticationProvider.digestAlg=MD5", {
            "DigestAuthenticationProvider.digestAlg=MD5: expected SHA1, SHA-256, SHA-512 or SHA3-256".into()
        }),
        ("electionAlg=0", {
            "electionAlg=0: expected 3, the only one that ZooKeeper knows; elections are Raft's here".into()
        }),
        (
            "peerType=leader",
            "peerType=leader: expected participant or observer".into(),
        ),
        (
            "ssl.clientAuth=maybe",
            "ssl.clientAuth=maybe: expected need, want or none".into(),
        ),
        (
            "ssl.keyStore.type=ZIP",
            "ssl.keyStore.type=ZIP: expected JKS, PEM, PKCS12 or BCFKS".into(),
        ),
        ("ssl.enabledProtocols=TLSv9", {
            "ssl.enabledProtocols=TLSv9: \"TLSv9\" is no version; expected TLSv1.2, TLSv1.3 or both, separated by a comma"
                .into()
        }),
        ("connection_throttle_drop_increase=2", {
            "connection_throttle_drop_increase=2: expected a number from 0 to 1".into()
        }),
        (
            "admin.commandURL=commands",
            "admin.commandURL=commands: expected a path that begins with a slash".into(),
        ),
        (
            "server.0=a:1:2",
            "server.0=a:1:2: \"0\" is no server id; expected server.N with N from 1 to 254".into(),
        ),
        (
            "server.x=a:1:2",
            "server.x=a:1:2: \"x\" is no server id; expected server.N with N from 1 to 254".into(),
        ),
        ("server.1=a:1", {
            "server.1=a:1: \"a:1\" does not have the form host:port:port[:participant|observer][;[host:]clientPort], \
             several addresses of one server joined by |"
                .into()
        }),
        (
            "server.1=a:1:1",
            "server.1=a:1:1: the ports for quorum and election are both 1; they must differ".into(),
        ),
        (
            "server.1=a:1:2:boss",
            "server.1=a:1:2:boss: \"boss\" is neither participant nor observer".into(),
        ),
        (
            "server.1=a:x:2",
            "server.1=a:x:2: \"x\" is not a TCP port from 1 to 65535".into(),
        ),
        (
            "server.1=a:1:2;b",
            "server.1=a:1:2;b: \"b\" after the ; is not of the form [host:]clientPort".into(),
        ),
        ("server.1=a:1:2:observer|b:1:2:participant", {
            "server.1=a:1:2:observer|b:1:2:participant: one address says observer, another participant; a server has \
             one role"
                .into()
        }),
        ("dataDir=C:\\users", {
            "syntax: \\users is not a character; \\u takes four hexadecimal digits (a path's backslashes are written \\\\)"
                .into()
        }),
    ];
    for (line, expected) in cases {
        let text = format!("# a comment\ndataDir=/data\n\n{line}\n");
        assert_eq!(scene(&text).problems(), [format!("zoo.cfg:4: {expected}")], "{line}");
    }
}

#[test]
fn keys_that_would_do_nothing_here_are_told_when_they_are_set() {
    let text = format!("{SAMPLE}jute.maxbuffer.extrasize=512\nconnectToLearnerMasterLimit=5\n");
    let told = "accepted, has no meaning here:";
    assert_eq!(
        scene(&text).notices(),
        [
            format!(
                "Info zoo.cfg:6: jute.maxbuffer.extrasize: {told} it is for what ZooKeeper's servers read of their own files and \
                 of each other; a request has jute.maxbuffer"
            ),
            format!(
                "Info zoo.cfg:7: connectToLearnerMasterLimit: {told} a server tries to reach the others until it does"
            ),
        ]
    );
}

#[test]
fn a_jute_maxbuffer_that_the_log_cannot_hold_is_cut_to_what_it_can_with_a_warning() {
    let loaded = |bytes: u32| scene(&format!("{SAMPLE}jute.maxbuffer={bytes}\n")).load().unwrap();
    let most = loaded(MOST_REQUEST_BYTES);
    assert_eq!(
        (most.config.limits.max_frame_bytes, most.notices),
        (MOST_REQUEST_BYTES, vec![])
    );
    for bytes in [MOST_REQUEST_BYTES + 1, 17 << 20, i32::MAX as u32] {
        let Loaded { config, notices } = loaded(bytes);
        assert_eq!(config.limits.max_frame_bytes, MOST_REQUEST_BYTES);
        let told: Vec<String> = notices.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "zoo.cfg:6: jute.maxbuffer: requests above 15728640 bytes are refused nevertheless, for the log holds no larger \
                 one; expected at most that here, while clients may have more, for replies"
            ]
        );
        assert_eq!(notices[0].severity, Severity::Warn);
    }
    let entry_bytes = u32::try_from(crate::storage::log::MAX_ENTRY_BYTES).unwrap();
    assert_eq!(
        entry_bytes - MOST_REQUEST_BYTES,
        1 << 20,
        "the room for who has sent it"
    );
}

#[test]
fn the_place_of_an_override_is_the_command_line() {
    let base = scene(SAMPLE);
    let problems = Scene {
        overrides: &["-Dzookeeper.tickTime=x", "stray"],
        ..base
    }
    .problems();
    assert_eq!(
        problems,
        [
            "command line: stray: is no setting; expected -Dkey=value",
            "command line: tickTime=x: expected a number of milliseconds from 1 to 2147483647",
        ]
    );
}

#[test]
fn settings_that_do_not_fit_together_are_errors() {
    let three = "initLimit=5\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
    let cases: &[(&str, &str)] = &[
        (
            "tickTime=2000",
            "zoo.cfg: dataDir: is not set; expected the directory of the data, such as dataDir=/var/lib/menagerie",
        ),
        (
            "dataDir=/data\nclientPortAddress=::1",
            "zoo.cfg:2: clientPortAddress=::1: is set but clientPort is not; set both or neither",
        ),
        (
            "dataDir=/data\nsecureClientPortAddress=::1",
            "zoo.cfg:2: secureClientPortAddress=::1: is set but secureClientPort is not; set both or neither",
        ),
        (
            "dataDir=/data\nclientPort=1\nsecureClientPort=1",
            "zoo.cfg:3: secureClientPort=1: is clientPort too; expected another port",
        ),
        (
            "dataDir=/data\nminSessionTimeout=9\nmaxSessionTimeout=8",
            "zoo.cfg:2: minSessionTimeout=9: the shortest session timeout would be longer than the longest; expected at most 8 (where not set, they are 2 and 20 ticks)",
        ),
        (
            "dataDir=/data\nmaxSessionTimeout=8",
            "zoo.cfg:2: maxSessionTimeout=8: the shortest session timeout would be longer than the longest; expected at least 6000 (where not set, they are 2 and 20 ticks)",
        ),
        (
            "dataDir=/data\nstandaloneEnabled=false",
            "zoo.cfg:2: standaloneEnabled=false: no server.N line names a participant; expected at least one",
        ),
        (
            "dataDir=/data\nserver.1=a:1:2:observer",
            "zoo.cfg:2: server.1=a:1:2:observer: all servers are observers; expected at least one participant",
        ),
        (
            "dataDir=/data\nserver.1=a:1:2\nserver.2=b:1:2:observer",
            "zoo.cfg:2: server.1=a:1:2: observers need an ensemble; expected more participants, or standaloneEnabled=false for an ensemble with one",
        ),
        (
            "dataDir=/data\nserver.1=a:1:2|b:1:2",
            "zoo.cfg:2: server.1=a:1:2|b:1:2: expected one address, or multiAddress.enabled=true for several",
        ),
        (
            "dataDir=/data\nserver.1=a:1:2\nserver.01=b:1:2",
            "zoo.cfg:3: server.01=b:1:2: server 1 has a line already: zoo.cfg:2, server.1",
        ),
        (
            "dataDir=/data\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2",
            "zoo.cfg: initLimit: is not set; expected a number of ticks in an ensemble, such as 10",
        ),
        (
            "dataDir=/data\ninitLimit=2\nserver.1=a:1:2\nserver.2=b:1:2",
            "zoo.cfg: syncLimit: is not set; expected a number of ticks in an ensemble, such as 5",
        ),
        (
            "dataDir=/none\nTHREE",
            "/none/myid: myid: the file is missing; expected the N of this server's server.N line in it",
        ),
        (
            "dataDir=/nine\nTHREE",
            "/nine/myid: myid=9: there is no line server.9; expected one of server.1, server.2, server.3",
        ),
        (
            "dataDir=/big\nTHREE",
            "/big/myid: myid=255: expected a number from 1 to 254",
        ),
        ("dataDir=/word", "/word/myid: myid=one: expected a number from 1 to 254"),
        (
            "dataDir=/data\nclientPort=5\nserver.1=a:1:2;6",
            "zoo.cfg:2: clientPort=5: is 0.0.0.0:5 here and 0.0.0.0:6 in server.1 (zoo.cfg:3); expected one of them, or the same twice",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=/dyn\nserver.2=a:1:2",
            "zoo.cfg:3: server.2=a:1:2: must stand in /dyn, because dynamicConfigFile names that file",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=/absent",
            "zoo.cfg:2: dynamicConfigFile=/absent: there is no such file; expected one with server.N lines",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=unreadable",
            "zoo.cfg:2: dynamicConfigFile=unreadable: the file cannot be read: permission denied",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=/versioned",
            "/versioned:2: version=1: expected no version in the file; it belongs into the file's name",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=/stray",
            "/stray:2: tickTime=1: does not belong into a file of server.N lines; expected it in zoo.cfg",
        ),
        (
            "dataDir=/data\ndynamicConfigFile=/broken",
            "/broken:1: server.1=a: \"a\" does not have the form host:port:port[:participant|observer][;[host:]clientPort], several addresses of one server joined by |",
        ),
        (
            "dataDir=/data\nenforce.auth.enabled=true",
            "zoo.cfg: enforce.auth.schemes: enforce.auth.enabled needs it; expected schemes such as digest,sasl",
        ),
        (
            "dataDir=/data\nenforce.auth.enabled=true\nenforce.auth.schemes=sasl",
            "zoo.cfg:3: enforce.auth.schemes=sasl: the scheme \"sasl\" is not available; available are digest, ip (authProvider.N adds others)",
        ),
        (
            "dataDir=/data\nsessionRequireClientSASLAuth=true",
            "zoo.cfg:2: sessionRequireClientSASLAuth=true: the scheme \"sasl\" is not available; available are digest, ip (authProvider.N adds others)",
        ),
        (
            "dataDir=/data\nsecureClientPort=1\nssl.authProvider=own",
            "zoo.cfg:3: ssl.authProvider=own: no provider for \"own\" is configured; expected x509",
        ),
        (
            "dataDir=/data\nssl.keyStore.location=/keys",
            "zoo.cfg:2: ssl.keyStore.location=/keys: its ending does not tell its form; expected .jks, .pem, .p12 or .bcfks, or ssl.keyStore.type",
        ),
        (
            "dataDir=/data\nssl.keyStore.location=/k.jks\nssl.keyStore.passwordPath=/absent",
            "zoo.cfg:3: ssl.keyStore.passwordPath=/absent: there is no such file; expected a file that holds the password",
        ),
    ];
    let files = [
        ("/data/myid", "1"),
        ("/nine/myid", " 9 \n"),
        ("/big/myid", "255"),
        ("/word/myid", "one\n"),
        ("/dyn", "server.1=a:1:2\n"),
        ("/versioned", "server.1=a:1:2\nversion=1"),
        ("/stray", "server.1=a:1:2\ntickTime=1"),
        ("/broken", "server.1=a"),
    ];
    for (text, expected) in cases {
        let text = text.replace("THREE", three);
        assert_eq!(
            Scene {
                text: &text,
                files: &files,
                ..Scene::default()
            }
            .problems(),
            [*expected],
            "{text}"
        );
    }
}

#[test]
fn all_problems_are_told_at_once() {
    assert_eq!(
        scene("tickTime=x\nclientPort=y\nclientPortAddress=::1\nskipACL=no")
            .problems()
            .len(),
        3
    );
}

#[test]
fn what_is_accepted_with_a_word_is_accepted_with_that_word() {
    let cases: &[(&str, &[&str])] = &[
        (
            "tickTime=1500",
            &["Warn zoo.cfg:6: tickTime: given again: \"1500\" counts, \"2000\" of line 1 does not"],
        ),
        (
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            &[
                "Info zoo.cfg:6: serverCnxnFactory: accepted, has no meaning here: there is one kind of network layer here",
            ],
        ),
        (
            "ssl.crl=true",
            &["Warn zoo.cfg:6: ssl.crl: not available yet, ignored: the check for revoked certificates"],
        ),
        ("ssl.crl=false", &[]),
        (
            "audit.enable=true",
            &["Warn zoo.cfg:6: audit.enable: not available yet, ignored: the audit log"],
        ),
        (
            "clientport=2182",
            &["Warn zoo.cfg:6: clientport: unknown key, ignored; did you mean clientPort?"],
        ),
        (
            "tickTmie=2",
            &["Warn zoo.cfg:6: tickTmie: unknown key, ignored; did you mean tickTime?"],
        ),
        (
            "something.else=2",
            &["Warn zoo.cfg:6: something.else: unknown key, ignored"],
        ),
        (
            "zookeeper.skipACL=yes",
            &[
                "Warn zoo.cfg:6: zookeeper.skipACL: ignored, as in ZooKeeper: zoo.cfg takes the key without its prefix, skipACL",
            ],
        ),
        (
            "skipACL=true",
            &["Warn zoo.cfg:6: skipACL: \"true\" is neither yes nor no; as in ZooKeeper it counts as no"],
        ),
        (
            "forceSync=false",
            &["Warn zoo.cfg:6: forceSync: \"false\" is neither yes nor no; as in ZooKeeper it counts as yes"],
        ),
        (
            "enforceQuota=yes",
            &["Warn zoo.cfg:6: enforceQuota: \"yes\" is neither true nor false; as in ZooKeeper it counts as false"],
        ),
        (
            "autopurge.snapRetainCount=1",
            &["Warn zoo.cfg:6: autopurge.snapRetainCount: 1 is less than 3; 3 are kept"],
        ),
        (
            "4lw.commands.whitelist=ruok,telnet",
            &["Warn zoo.cfg:6: 4lw.commands.whitelist: there is no four-letter word \"telnet\""],
        ),
        (
            "authProvider.1=com.example.Own",
            &["Warn zoo.cfg:6: authProvider.1: there is no provider \"com.example.Own\" here; it is not available"],
        ),
        (
            "dataLogDir=logs",
            &[
                "Warn zoo.cfg:6: dataLogDir: is relative to the working directory; write ./ before it if that is what you mean",
            ],
        ),
        ("dataLogDir=./logs", &[]),
        (
            "secureClientPort=2281",
            &[
                "Warn zoo.cfg:6: secureClientPort: no TLS handshake can succeed without a certificate; set ssl.keyStore.location",
            ],
        ),
        (
            "ssl.keyStore.password=x",
            &["Warn zoo.cfg:6: ssl.keyStore.password: has no effect without ssl.keyStore.location"],
        ),
        (
            "ssl.protocol=TLSv1",
            &["Warn zoo.cfg:6: ssl.protocol: TLSv1 is broken and not spoken here; TLSv1.2 or TLSv1.3 is used"],
        ),
        (
            "peerType=observer",
            &[
                "Warn zoo.cfg:6: peerType: is observer, but this server is a participant: no server.N line says otherwise",
            ],
        ),
        (
            "server.1=a:1:2",
            &[
                "Warn zoo.cfg:6: server.1: the only server: it stands alone (standaloneEnabled=false makes it an ensemble of one)",
            ],
        ),
        (
            "server.1=a:1:2\nserver.2=b:1:2",
            &["Warn zoo.cfg:6: server.1: no participant may fail: that takes at least 3 of them"],
        ),
    ];
    for (line, expected) in cases {
        let text = format!("{SAMPLE}{line}\n");
        assert_eq!(
            Scene {
                text: &text,
                files: FILES,
                ..Scene::default()
            }
            .notices(),
            *expected,
            "{line}"
        );
    }
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let text = format!("{SAMPLE}maxCnxns=1\n");
    let base = Scene {
        text: &text,
        ..Scene::default()
    };
    assert_eq!(base.config().limits.max_connections, NonZeroU32::new(1));

    let environment = [
        ("SERVER_JVMFLAGS", "-Xmx1g -Dzookeeper.maxCnxns=2"),
        ("JVMFLAGS", "-DmaxCnxns=3"),
    ];
    let with_environment = Scene {
        environment: &environment,
        ..base
    };
    assert_eq!(with_environment.config().limits.max_connections, NonZeroU32::new(3));

    let with_all = Scene {
        overrides: &["-DmaxCnxns=4"],
        ..with_environment
    };
    assert_eq!(with_all.config().limits.max_connections, NonZeroU32::new(4));
    assert_eq!(
        with_all.notices(),
        [
            "Info environment SERVER_JVMFLAGS: -Xmx1g: accepted, has no meaning here: it is for a JVM",
            "Warn environment SERVER_JVMFLAGS: maxCnxns: \"2\" of the environment SERVER_JVMFLAGS counts, \"1\" of zoo.cfg:6 does not",
            "Warn environment JVMFLAGS: maxCnxns: \"3\" of the environment JVMFLAGS counts, \"2\" of environment SERVER_JVMFLAGS does not",
            "Warn command line: maxCnxns: \"4\" of the command line counts, \"3\" of environment JVMFLAGS does not",
        ]
    );
}

#[test]
fn flags_that_harnesses_pass_to_a_jvm_are_understood() {
    // What kazoo's test harness passes, in front of the class and its zoo.cfg.
    let flags = [
        "-Dfile.encoding=UTF-8",
        "-Dreadonlymode.enabled=true",
        "-Dzookeeper.log.dir=/tmp/log",
        "-Dzookeeper.root.logger=INFO,CONSOLE",
        "-Dlog4j.configuration=file:/tmp/log4j.properties",
        "-Djava.awt.headless=true",
        "-Djava.security.auth.login.config=/tmp/jaas.conf",
        "-Dzookeeper.extendedTypesEnabled=true",
    ];
    let scene = Scene {
        text: SAMPLE,
        overrides: &flags,
        files: &[("/tmp/jaas.conf", JAAS)],
        ..Scene::default()
    };
    let loaded = scene.load().unwrap();
    // All of it is honoured, or means nothing without a JVM.
    let warned: Vec<_> = loaded
        .notices
        .iter()
        .filter(|notice| notice.severity == Severity::Warn)
        .collect();
    assert!(warned.is_empty(), "{:?}", scene.notices());
    assert!(loaded.config.reads.read_only_mode && loaded.config.tree.extended_types);
    assert_eq!(
        loaded.config.auth.sasl.login_config_file.as_deref(),
        Some(Path::new("/tmp/jaas.conf"))
    );
}

#[test]
fn a_login_file_that_cannot_be_used_is_an_error_or_named_in_a_warning() {
    let scene = |section: &'static str, file: &'static str| {
        (
            format!("{SAMPLE}sasl.serverconfig={section}\njava.security.auth.login.config={file}\n"),
            [("/jaas", JAAS), ("/bad", "Server {\n oops")],
        )
    };
    for (section, file, message) in [
        ("Server", "/gone", "there is no such file"),
        ("Server", "unreadable", "the file cannot be read: permission denied"),
        ("Server", "/bad", "it is no login file: line 2: expected required"),
    ] {
        let (text, files) = scene(section, file);
        let scene = Scene {
            text: &text,
            files: &files,
            ..Scene::default()
        };
        assert!(scene.problems().concat().contains(message), "{:?}", scene.problems());
    }
    for (section, message) in [
        ("Nobody", "it has no section Nobody"),
        (
            "Kerberos",
            "com.sun.security.auth.module.Krb5LoginModule: Kerberos is not available",
        ),
    ] {
        let (text, files) = scene(section, "/jaas");
        let scene = Scene {
            text: &text,
            files: &files,
            ..Scene::default()
        };
        assert!(scene.notices().concat().contains(message), "{:?}", scene.notices());
        assert_eq!(scene.config().auth.sasl.users, None);
    }
}

#[test]
fn secrets_show_in_no_notice_and_no_error() {
    let text = format!(
        "{SAMPLE}ssl.keyStore.password=hunter2\nssl.keyStore.password=hunter3\n\
         DigestAuthenticationProvider.superDigest=hunter4\n"
    );
    let scene = Scene {
        text: &text,
        overrides: &["-Dssl.keyStore.password=hunter5"],
        ..Scene::default()
    };
    let error = scene.load().unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert!(!format!("{error} {:?} {:?}", error.notices, error.problems).contains("hunter"));
    assert!(!error.notices.is_empty());
}

#[test]
fn the_client_address_of_this_servers_line_is_adopted() {
    let ensemble = "dataDir=/data\ninitLimit=5\nsyncLimit=2\nserver.1=a:1:2;127.0.0.1:2191\nserver.2=b:1:2;2192\n";
    let config = Scene {
        text: ensemble,
        files: FILES,
        ..Scene::default()
    }
    .config();
    assert_eq!(config.listeners.client.unwrap().to_string(), "127.0.0.1:2191");
    // The image's way to configure one server: the port stands in its line alone.
    let lone = "dataDir=/data\nserver.1=localhost:2888:3888;2181\n";
    for files in [FILES, &[]] {
        let config = Scene {
            text: lone,
            files,
            ..Scene::default()
        }
        .config();
        assert_eq!(config.listeners.client, Some(Address::any(2181)));
        assert_eq!(config.cluster.membership, Membership::Standalone);
        assert_eq!(config.cluster.server_id, Some(ServerId::FIRST));
    }
}

#[test]
fn port_0_lets_the_system_choose_and_no_port_is_warned_about() {
    // Seen on ZooKeeper 3.9.5: 0 is a port there, not its absence.
    let config = scene("dataDir=/data\nclientPort=0\nclientPortAddress=127.0.0.1\nsecureClientPort=0\n").config();
    assert_eq!(config.listeners.client.unwrap().to_string(), "127.0.0.1:0");
    assert_eq!(config.listeners.secure_client, Some(Address::any(0)));
    assert_eq!(
        scene("dataDir=/data\n").notices(),
        ["Warn zoo.cfg: clientPort: neither clientPort nor secureClientPort is set: no client can connect"]
    );
}

#[test]
fn tls_between_servers_needs_both_stores_and_says_what_it_does_not_check() {
    let text = |lines: &str| {
        let servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
        format!("dataDir=/data\nclientPort=1\ninitLimit=1\nsyncLimit=1\n{servers}{lines}")
    };
    let load = |lines: &str| {
        let text = text(lines);
        let scene = Scene {
            text: &text,
            files: FILES,
            ..Scene::default()
        };
        match scene.load() {
            Ok(_) => scene.notices(),
            Err(_) => scene.problems(),
        }
    };
    let stores = "ssl.quorum.keyStore.location=/k.jks\nssl.quorum.trustStore.location=/t.jks\n";
    let named = "ssl.quorum.hostnameVerification=true\n";
    let no_key = "needs a certificate; set ssl.quorum.keyStore.location";
    let no_trust = "needs certificates to check the others' against; set ssl.quorum.trustStore.location";
    for (lines, told) in [
        (
            "sslQuorum=true\n".to_owned(),
            vec![
                format!("zoo.cfg:8: sslQuorum=true: {no_key}"),
                format!("zoo.cfg:8: sslQuorum=true: {no_trust}"),
            ],
        ),
        (
            "portUnification=true\nssl.quorum.clientAuth=none\n".to_owned(),
            vec![format!("zoo.cfg:8: portUnification=true: {no_key}")],
        ),
        (format!("sslQuorum=true\n{stores}{named}"), vec![]),
        (format!("portUnification=true\n{stores}"), vec![]),
        ("sslQuorum=false\n".to_owned(), vec![]),
    ] {
        assert_eq!(load(&lines), told, "{lines}");
    }
    let told = load(&format!("sslQuorum=true\n{stores}"));
    assert!(
        told.len() == 1 && told[0].starts_with("Info zoo.cfg:8: sslQuorum: any certificate"),
        "{told:?}"
    );
    // A server that stands alone talks to nobody.
    assert_eq!(scene(&format!("{SAMPLE}sslQuorum=true\n")).notices(), [""; 0]);
}

#[test]
fn limits_of_0_ticks_are_none_and_an_ensemble_needs_some() {
    let alone = scene("dataDir=/data\nclientPort=1\ninitLimit=0\nsyncLimit=-1\n").config();
    assert_eq!(
        (alone.cluster.init_limit_ticks, alone.cluster.sync_limit_ticks),
        (10, 5)
    );
    let text = "dataDir=/data\ninitLimit=0\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\n";
    let problems = Scene {
        text,
        files: FILES,
        ..Scene::default()
    }
    .problems();
    assert_eq!(
        problems,
        ["zoo.cfg:2: initLimit=0: is not set; expected a number of ticks in an ensemble, such as 10"]
    );
}

#[test]
fn port_and_directory_are_a_configuration() {
    let arguments = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let loaded = Config::from_port_and_dir(&arguments(&["2190", "/d"])).unwrap();
    assert_eq!((loaded.config.sessions.tick_ms, loaded.notices.len()), (3000, 0));
    let config = Config::from_port_and_dir(&arguments(&["2190", "/d", "100", "0"]))
        .unwrap()
        .config;
    assert_eq!(config.listeners.client, Some(Address::any(2190)));
    assert_eq!(config.storage.data_dir, Path::new("/d"));
    assert_eq!(
        (config.sessions.tick_ms, config.limits.max_connections_per_address),
        (100, None)
    );
    for (list, expected) in [
        (
            vec!["2190"],
            "command line: arguments=2190: 1 of them; expected port dataDir [tickTime] [maxClientCnxns]",
        ),
        (
            vec!["x", "/d"],
            "command line: clientPort=x: expected a TCP port from 0 to 65535, where 0 lets the system choose",
        ),
    ] {
        assert_eq!(
            Config::from_port_and_dir(&arguments(&list)).unwrap_err().to_string(),
            expected
        );
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_loader_panic_or_gives_settings_that_do_not_fit(
        lines in proptest::collection::vec((any::<proptest::sample::Index>(), "[-a-z0-9.,:;|%*/ ]{0,12}"), 0..12)
    ) {
        let rows: Vec<&str> = table::rows().map(|row| row.name).collect();
        let lines = lines.iter().map(|(index, value)| format!("{}={value}\n", index.get(&rows).replace('*', "1")));
        let text = lines.collect::<String>();
        if let Ok(Loaded { config, .. }) = scene(&text).load() {
            prop_assert!(config.sessions.min_timeout_ms <= config.sessions.max_timeout_ms);
            prop_assert!(config.sessions.tick_ms > 0);
            prop_assert!(!config.storage.data_dir.as_os_str().is_empty());
            prop_assert!(config.auth.enforced_schemes != Some(BTreeSet::new()));
        }
    }
}

//! The commands of the HTTP admin server: names, who may run them, and what they answer, in ZooKeeper's words and order.
//!
//! Every answer has `command` (the first of its names) and `error`. A command that fails for any reason but rights is
//! answered with status 200 and an error text, as ZooKeeper does.
//!
//! `hand_over` is ours.
//!
//! Left out: `observer_connection_stat_reset` does nothing, for links to observers have no numbers that could be reset;
//! `snapshot` and `restore` check rights, then say that they are not available.
//!
//! Known differences: `initial_configuration` hides passwords, ZooKeeper shows them to whoever asks. `observers` tells of
//! each one where its line says that it is and whether it has caught up, and no numbers of the link to it.

use super::json::{Json, Members};
use super::listing::{Dump, WatchListing};
use super::members;
use super::metrics::Number;
use super::process::{self, Process};
use super::rights::{self, Denied};
use super::status::{Status, version};
use super::text;
use super::words::NOT_SERVING;
use crate::server::{Connection, ConnectionView, EnsembleRole, HandedOver, Service, Shared};
use std::net::IpAddr;

/// The version of the digest that `hash` shows: Apache's second.
const DIGEST_VERSION: i64 = 2;

/// What is asked of a command.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: String,
    /// The part of the address behind `?`.
    pub(super) query: String,
    /// The header `Authorization`.
    pub(super) authorization: Option<String>,
    pub(super) peer: IpAddr,
    pub(super) is_post: bool,
}

impl Question {
    fn argument(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// An answer: HTTP's status, and a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Json,
}

/// How a command answers.
enum Answer {
    /// Without a look at the server.
    Alone(fn(&Status, &Question) -> Result<Members, String>),
    /// From a server that serves.
    OfServer(fn(&Status, &Shared) -> Members),
    /// Only to who has every right on the root.
    Guarded {
        is_post: bool,
        run: fn(&Shared) -> Result<Members, (u16, String)>,
    },
}

struct Command {
    names: &'static [&'static str],
    answer: Answer,
}

/// All commands, in the order of their first names.
const COMMANDS: &[Command] = &[
    Command {
        names: &["configuration", "conf", "config"],
        answer: Answer::OfServer(configuration),
    },
    Command {
        names: &["connection_stat_reset", "crst"],
        answer: Answer::OfServer(|_, shared| {
            shared.for_each_connection(Connection::reset_numbers);
            Vec::new()
        }),
    },
    Command {
        names: &["connections", "cons"],
        answer: Answer::OfServer(|_, shared| connections(shared, false)),
    },
    Command {
        names: &["dirs"],
        answer: Answer::OfServer(directories),
    },
    Command {
        names: &["dump"],
        answer: Answer::OfServer(dump),
    },
    Command {
        names: &["environment", "env", "envi"],
        answer: Answer::Alone(|_, _| Ok(environment(|_| true))),
    },
    Command {
        names: &["get_trace_mask", "gtmk"],
        answer: Answer::Alone(|status, _| Ok(trace_mask(status))),
    },
    Command {
        names: &["hand_over"],
        answer: Answer::Guarded {
            is_post: true,
            run: hand_over,
        },
    },
    Command {
        names: &["hash"],
        answer: Answer::OfServer(digests),
    },
    Command {
        names: &["initial_configuration", "icfg"],
        answer: Answer::OfServer(|status, _| {
            let text = without_passwords(&status.config.origin.text);
            vec![member("initial_configuration", Json::Text(text))]
        }),
    },
    Command {
        names: &["is_read_only", "isro"],
        answer: Answer::OfServer(|_, shared| vec![member("read_only", Json::Bool(is_read_only(shared)))]),
    },
    Command {
        names: &["last_snapshot", "lsnp"],
        answer: Answer::OfServer(last_snapshot),
    },
    Command {
        names: &["leader", "lead"],
        answer: Answer::OfServer(leader),
    },
    Command {
        names: &["monitor", "mntr"],
        answer: Answer::Alone(|status, _| Ok(monitor(status))),
    },
    Command {
        names: &["observer_connection_stat_reset", "orst"],
        answer: Answer::OfServer(|_, _| Vec::new()),
    },
    Command {
        names: &["observers", "obsr"],
        answer: Answer::OfServer(|status, shared| members::observers(status.ensemble(shared).as_ref())),
    },
    Command {
        names: &["restore", "rest"],
        answer: Answer::Guarded {
            is_post: true,
            run: |_| unavailable("restore"),
        },
    },
    Command {
        names: &["ruok"],
        answer: Answer::OfServer(|_, _| Vec::new()),
    },
    Command {
        names: &["server_stats", "srvr"],
        answer: Answer::OfServer(server_stats),
    },
    Command {
        names: &["set_trace_mask", "stmk"],
        answer: Answer::Alone(set_trace_mask),
    },
    Command {
        names: &["snapshot", "snap"],
        answer: Answer::Guarded {
            is_post: false,
            run: |_| unavailable("snapshot"),
        },
    },
    Command {
        names: &["stat_reset", "srst"],
        answer: Answer::OfServer(|status, shared| {
            status.reset(shared);
            Vec::new()
        }),
    },
    Command {
        names: &["stats", "stat"],
        answer: Answer::OfServer(|status, shared| {
            let mut fields = server_stats(status, shared);
            fields.extend(connections(shared, true));
            fields
        }),
    },
    Command {
        names: &["system_properties", "sysp"],
        answer: Answer::Alone(|_, _| Ok(environment(|key| !key.starts_with("zookeeper")))),
    },
    Command {
        names: &["voting_view"],
        answer: Answer::OfServer(|status, shared| {
            let view = members::voting_view(status.ensemble(shared).as_ref());
            vec![member("current_config", view)]
        }),
    },
    Command {
        names: &["watch_summary", "wchs"],
        answer: Answer::OfServer(|_, shared| {
            let counts = shared.watches.counts();
            vec![
                member("num_connections", counts.connections.into()),
                member("num_paths", counts.paths.into()),
                member("num_total_watches", counts.watches.into()),
            ]
        }),
    },
    Command {
        names: &["watches", "wchc"],
        answer: Answer::OfServer(watches),
    },
    Command {
        names: &["watches_by_path", "wchp"],
        answer: Answer::OfServer(watches_by_path),
    },
    Command {
        names: &["zabstate"],
        answer: Answer::Alone(|status, _| Ok(zab_state(status))),
    },
];

/// The page with links to all commands.
pub(super) fn links(base: &str) -> String {
    let names = COMMANDS.iter().filter_map(|command| command.names.first());
    names
        .map(|name| format!("<a href=\"{base}/{name}\">{name}</a>\n<br/>\n"))
        .collect()
}

/// Runs a command.
pub(super) fn run(status: &Status, question: &Question) -> Reply {
    let asked = question.name.as_str();
    let Some(command) = COMMANDS.iter().find(|command| command.names.contains(&asked)) else {
        return failed(200, asked, &format!("Unknown command: {asked}"));
    };
    let name = command.names.first().copied().unwrap_or(asked);
    let wants_post = matches!(command.answer, Answer::Guarded { is_post: true, .. });
    if wants_post != question.is_post {
        let method = if wants_post { "POST" } else { "GET" };
        return failed(405, name, &format!("This command takes the method {method}"));
    }
    match (&command.answer, status.serving()) {
        (Answer::Alone(answer), _) => match answer(status, question) {
            Ok(fields) => succeeded(name, fields),
            // Here the error stands among the data, as in ZooKeeper.
            Err(error) => succeeded(name, vec![member("error", Json::Text(error))]),
        },
        (_, None) => failed(200, name, NOT_SERVING),
        (Answer::OfServer(answer), Some(shared)) => succeeded(name, answer(status, &shared)),
        (Answer::Guarded { run, .. }, Some(shared)) => guarded(name, question, &shared, *run),
    }
}

fn guarded(
    name: &str,
    question: &Question,
    shared: &Shared,
    run: fn(&Shared) -> Result<Members, (u16, String)>,
) -> Reply {
    match rights::check(shared, question.authorization.as_deref(), question.peer) {
        Ok(()) => match run(shared) {
            Ok(fields) => succeeded(name, fields),
            Err((status, error)) => failed(status, name, &error),
        },
        Err(denied @ (Denied::NoCredentials | Denied::NotAuthenticated)) => failed(401, name, &denied.to_string()),
        Err(denied @ Denied::NotAuthorized) => failed(403, name, &denied.to_string()),
    }
}

fn unavailable(name: &str) -> Result<Members, (u16, String)> {
    Err((503, format!("{name} is not available in this version yet")))
}

/// Ours: another server is to lead.
fn hand_over(shared: &Shared) -> Result<Members, (u16, String)> {
    match shared.hand_over() {
        Ok(HandedOver { from, to }) => Ok(vec![
            member("previous_leader", from.0.into()),
            member("leader", to.0.into()),
        ]),
        Err(error) => Err((200, error.to_string())),
    }
}

fn succeeded(name: &str, mut fields: Members) -> Reply {
    let has_error = fields.iter().any(|(key, _)| key == "error");
    fields.push(member("command", name.into()));
    if !has_error {
        fields.push(member("error", Json::Null));
    }
    Reply {
        status: 200,
        body: Json::Object(fields),
    }
}

fn failed(status: u16, name: &str, error: &str) -> Reply {
    Reply {
        status,
        body: Json::object([("command", name.into()), ("error", error.into())]),
    }
}

fn member(name: &str, value: Json) -> (String, Json) {
    (name.to_owned(), value)
}

fn is_read_only(shared: &Shared) -> bool {
    shared.service() == Service::ReadOnly
}

fn configuration(status: &Status, shared: &Shared) -> Members {
    let config = &status.config;
    let mut fields = vec![member(
        "client_port",
        Json::Whole(
            config
                .listeners
                .client
                .as_ref()
                .map_or(-1, |address| address.port.into()),
        ),
    )];
    if let Some(secure) = &config.listeners.secure_client {
        fields.push(member("secure_client_port", Json::Whole(secure.port.into())));
    }
    let path = |path: &std::path::Path| Json::Text(path.display().to_string());
    let number = |number: u32| Json::Whole(number.into());
    let per_address = config.limits.max_connections_per_address.map_or(0, |limit| limit.get());
    fields.extend([
        member("data_dir", path(&status.directories.tree)),
        member("data_log_dir", path(&status.directories.log)),
        member("tick_time", number(config.sessions.tick_ms)),
        member("max_client_cnxns", number(per_address)),
        member("min_session_timeout", number(config.sessions.min_timeout_ms)),
        member("max_session_timeout", number(config.sessions.max_timeout_ms)),
        member("server_id", number(status.server_id())),
        member(
            "client_port_listen_backlog",
            Json::Whole(config.listeners.backlog.map_or(-1, |backlog| backlog.get().into())),
        ),
    ]);
    if let Some(ensemble) = status.ensemble(shared) {
        fields.extend(members::configuration(&config.cluster, &ensemble));
    }
    fields
}

fn connections(shared: &Shared, is_brief: bool) -> Members {
    let views = shared.connection_views();
    let (secure, plain): (Vec<_>, Vec<_>) = views.iter().partition(|view| view.secure);
    let list = |views: Vec<&ConnectionView>| Json::List(views.iter().map(|view| connection(view, is_brief)).collect());
    vec![
        member("connections", list(plain)),
        member("secure_connections", list(secure)),
    ]
}

fn connection(view: &ConnectionView, is_brief: bool) -> Json {
    let numbers = &view.numbers;
    let mut fields = vec![
        member(
            "remote_socket_address",
            Json::Text(super::java::socket_address(view.peer)),
        ),
        member("interest_ops", Json::Whole(1)),
        member("outstanding_requests", view.outstanding.into()),
        member("packets_received", numbers.received.into()),
        member("packets_sent", numbers.sent.into()),
    ];
    if is_brief {
        return Json::Object(fields);
    }
    let last_operation = match numbers.last_op {
        None => Json::Null,
        operation => text::operation(operation).into(),
    };
    let average_us = numbers.sum_latency_us.checked_div(numbers.answered).unwrap_or(0);
    fields.extend([
        member("session_id", Json::Whole(view.session.0)),
        member("last_operation", last_operation),
        member("established", Json::Whole(view.established_ms)),
        member("session_timeout", Json::Whole(view.timeout_ms.into())),
        member("last_cxid", Json::Whole(numbers.last_xid.max(0).into())),
        member("last_zxid", Json::Whole(numbers.last_zxid)),
        member("last_response_time", (numbers.last_reply_us / 1000).into()),
        member("last_latency", (numbers.last_latency_us / 1000).into()),
        member("min_latency", (numbers.min_latency_us / 1000).into()),
        member("avg_latency", (average_us / 1000).into()),
        member("max_latency", (numbers.max_latency_us / 1000).into()),
    ]);
    Json::Object(fields)
}

fn directories(status: &Status, _: &Shared) -> Members {
    let (tree, log) = status.directory_sizes();
    vec![member("datadir_size", tree.into()), member("logdir_size", log.into())]
}

/// Says in the answer that a listing does not hold everything.
fn note_cut(fields: &mut Members, is_cut: bool) {
    if is_cut {
        fields.push(member("truncated", Json::Bool(true)));
    }
}

fn dump(status: &Status, shared: &Shared) -> Members {
    let dump = Dump::gather(shared, status.config.sessions.tick_ms);
    let expiries = dump.sessions.iter().map(|(at, sessions)| {
        let sessions = sessions.iter().map(|session| Json::Whole(session.0)).collect();
        (at.to_string(), Json::List(sessions))
    });
    let mut fields = vec![member("expiry_time_to_session_ids", Json::Object(expiries.collect()))];
    let ephemerals = dump.ephemerals.into_iter().map(|(session, paths)| {
        let paths = paths.into_iter().map(Json::Text).collect();
        (session.0.to_string(), Json::List(paths))
    });
    fields.push(member(
        "session_id_to_ephemeral_paths",
        Json::Object(ephemerals.collect()),
    ));
    note_cut(&mut fields, dump.is_cut);
    fields
}

fn environment(is_wanted: impl Fn(&str) -> bool) -> Members {
    let variables = process::environment(&version()).into_iter();
    variables
        .filter(|(key, _)| is_wanted(key))
        .map(|(key, value)| member(key, Json::Text(value)))
        .collect()
}

fn trace_mask(status: &Status) -> Members {
    vec![member("tracemask", Json::Whole(status.trace_mask()))]
}

fn set_trace_mask(status: &Status, question: &Question) -> Result<Members, String> {
    let Some(text) = question.argument("traceMask") else {
        return Err("setTraceMask requires long traceMask argument".to_owned());
    };
    let mask = text
        .parse()
        .map_err(|_| format!("setTraceMask requires long traceMask argument, got {text}"))?;
    status.set_trace_mask(mask);
    Ok(trace_mask(status))
}

fn digests(_: &Status, shared: &Shared) -> Members {
    let state = shared.state.read();
    let digests = state.recorded_digests().map(|(zxid, digest)| {
        Json::object([
            ("zxid", Json::Whole(zxid.0)),
            ("digest", Json::Whole(digest.cast_signed())),
            ("digest_version", Json::Whole(DIGEST_VERSION)),
        ])
    });
    vec![member("digests", Json::List(digests.collect()))]
}

/// Hides what stands behind the keys of passwords.
fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let key_end = line.find(['=', ':']).unwrap_or(line.len());
        let key = line.get(..key_end).unwrap_or(line).to_lowercase();
        let is_secret = ["password", "digest", "secret"].iter().any(|word| key.contains(word)) && !key.contains("path");
        if is_secret && key_end < line.len() {
            shown.push_str(&line[..=key_end]);
            shown.push_str("***\n");
        } else {
            shown.push_str(line);
        }
    }
    shown
}

fn last_snapshot(_: &Status, shared: &Shared) -> Members {
    let (zxid, wall_ms) = shared.statistics.last_checkpoint();
    vec![
        member("zxid", Json::Text(format!("{zxid:x}"))),
        member("timestamp", Json::Whole(wall_ms / 1000)),
    ]
}

fn leader(status: &Status, shared: &Shared) -> Members {
    let known = status.ensemble(shared).and_then(|ensemble| members::leader(&ensemble));
    known.unwrap_or_else(|| vec![member("error", "server is not initialized".into())])
}

fn monitor(status: &Status) -> Members {
    let mut fields = vec![member("version", Json::Text(version()))];
    let Some(shared) = status.serving() else { return fields };
    fields.push(member("server_state", Json::Text(shared.ensemble().role.to_string())));
    let ensemble = status.ensemble(&shared);
    if let Some(ensemble) = &ensemble {
        fields.push(member("peer_state", ensemble.peer_state().into()));
    }
    if let Some(master) = ensemble.and_then(|ensemble| ensemble.observer_master()) {
        fields.push(member("observer_master_id", Json::Whole(master.get().into())));
    }
    if status.has_metrics() {
        let computed = status.computed(&shared, &Process::look());
        status.registry.dump(&computed, |key, number| {
            let value = match number {
                Number::Whole(number) => Json::Whole(number),
                Number::Fraction(number) => Json::Fraction(number),
            };
            fields.push(member(key, value));
        });
    }
    fields
}

fn buffer_sizes(sizes: (i64, i64, i64)) -> Json {
    Json::object([
        ("last_buffer_size", Json::Whole(sizes.0)),
        ("min_buffer_size", Json::Whole(sizes.1)),
        ("max_buffer_size", Json::Whole(sizes.2)),
    ])
}

fn server_stats(status: &Status, shared: &Shared) -> Members {
    let numbers = status.numbers(shared);
    let statistics = &shared.statistics;
    let (tree, log) = status.directory_sizes();
    let sizes = buffer_sizes(statistics.response_sizes());
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let stats = Json::object([
        ("packets_sent", numbers.sent.into()),
        ("packets_received", numbers.received.into()),
        (
            "fsync_threshold_exceed_count",
            statistics.slow_syncs.load(relaxed).into(),
        ),
        ("client_response_stats", sizes.clone()),
        ("data_dir_size", tree.into()),
        ("log_dir_size", log.into()),
        ("provider_null", Json::Bool(false)),
        ("last_processed_zxid", Json::Whole(numbers.zxid.0)),
        ("outstanding_requests", numbers.outstanding.into()),
        ("server_state", Json::Text(numbers.role.to_string())),
        ("avg_latency", Json::Fraction(numbers.average_latency())),
        ("max_latency", (numbers.latency.max_us / 1000).into()),
        ("min_latency", (numbers.latency.min_us / 1000).into()),
        ("num_alive_client_connections", numbers.connections.into()),
        ("uptime", (shared.clock.now_us() / 1000).into()),
        ("auth_failed_count", statistics.auth_failed.load(relaxed).into()),
        ("non_mtlsremote_conn_count", Json::Whole(0)),
        ("non_mtlslocal_conn_count", Json::Whole(0)),
    ]);
    let mut fields = vec![
        member("version", Json::Text(version())),
        member("read_only", Json::Bool(is_read_only(shared))),
        member("server_stats", stats),
        member("client_response", sizes),
    ];
    if numbers.role == EnsembleRole::Leader {
        let sizes = numbers.proposals;
        let sizes = buffer_sizes((sizes.last, sizes.least, sizes.greatest));
        fields.push(member("proposal_stats", sizes));
    }
    fields.push(member("node_count", numbers.znodes.into()));
    fields
}

fn watches(_: &Status, shared: &Shared) -> Members {
    let (groups, is_cut) = WatchListing::gather(shared).by_session();
    let groups = groups.into_iter().map(|(session, paths)| {
        let paths = paths.into_iter().map(Json::Text).collect();
        (session.0.to_string(), Json::List(paths))
    });
    let mut fields = vec![member("session_id_to_watched_paths", Json::Object(groups.collect()))];
    note_cut(&mut fields, is_cut);
    fields
}

fn watches_by_path(_: &Status, shared: &Shared) -> Members {
    let (groups, is_cut) = WatchListing::gather(shared).by_path();
    let groups = groups.into_iter().map(|(path, sessions)| {
        let sessions = sessions.into_iter().map(|session| Json::Whole(session.0)).collect();
        (path, Json::List(sessions))
    });
    let mut fields = vec![member("path_to_session_ids", Json::Object(groups.collect()))];
    note_cut(&mut fields, is_cut);
    fields
}

fn zab_state(status: &Status) -> Members {
    let shared = status.present();
    let known = shared.and_then(|shared| Some((status.ensemble(&shared)?, shared.applied_zxid())));
    match known {
        Some((ensemble, zxid)) => members::zab_state(&ensemble, zxid),
        None => vec![member("voting", Json::Bool(false)), member("zabstate", "".into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::Registry;
    use crate::admin::status::Directories;
    use crate::config::Config;
    use std::sync::Arc;

    fn question(name: &str, query: &str) -> Question {
        Question {
            name: name.to_owned(),
            query: query.to_owned(),
            authorization: None,
            peer: IpAddr::from([127, 0, 0, 1]),
            is_post: false,
        }
    }

    /// Of a server that was never started.
    fn ask(name: &str, query: &str) -> (u16, String) {
        let config = Config::embedded_default();
        let status = Status::new(config, Directories::default(), Arc::new(Registry::default()));
        let reply = run(&status, &question(name, query));
        (reply.status, reply.body.render())
    }

    #[test]
    fn every_command_has_its_names_once_and_they_are_listed() {
        let mut names: Vec<&str> = COMMANDS
            .iter()
            .flat_map(|command| command.names.iter().copied())
            .collect();
        let firsts: Vec<&str> = COMMANDS.iter().map(|command| command.names[0]).collect();
        assert!(firsts.is_sorted());
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(links("/commands").starts_with("<a href=\"/commands/configuration\">configuration</a>\n<br/>\n"));
    }

    #[test]
    fn failures_are_told_as_zookeeper_tells_them() {
        let told = |error: &str, name: &str| format!("{{\n  \"command\" : \"{name}\",\n  \"error\" : \"{error}\"\n}}");
        assert_eq!(
            ask("nonsense", ""),
            (200, told("Unknown command: nonsense", "nonsense"))
        );
        assert_eq!(ask("stat", ""), (200, told(NOT_SERVING, "stats")));
        assert_eq!(ask("restore", "").0, 405);
        assert_eq!(ask("hand_over", "").0, 405);
        let missing = "{\n  \"error\" : \"setTraceMask requires long traceMask argument\",\n  \"command\" : \"set_trace_mask\"\n}";
        assert_eq!(ask("stmk", ""), (200, missing.to_owned()));
    }

    #[test]
    fn commands_that_need_no_server_answer_without_one() {
        assert_eq!(
            ask("stmk", "x=1&traceMask=5"),
            (
                200,
                "{\n  \"tracemask\" : 5,\n  \"command\" : \"set_trace_mask\",\n  \"error\" : null\n}".to_owned()
            )
        );
        assert!(ask("env", "").1.contains("\"java.version\" : "));
        assert!(ask("zabstate", "").1.contains("\"voting\" : false"));
    }

    #[test]
    fn the_configuration_is_shown_without_passwords() {
        let text = "clientPort=2181\nssl.keyStore.password=hunter2\nssl.keyStore.passwordPath=/p\n\
                    DigestAuthenticationProvider.superDigest : super:x=\ntickTime=2000";
        assert_eq!(
            without_passwords(text),
            "clientPort=2181\nssl.keyStore.password=***\nssl.keyStore.passwordPath=/p\n\
             DigestAuthenticationProvider.superDigest :***\ntickTime=2000"
        );
    }
}

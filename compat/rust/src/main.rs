//! Rust's zookeeper-client against the server named by ZK=host:port. Prints the lines that compat/run counts.

use std::future::Future;
use std::time::Duration;
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, Error, EventType};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Longest time of one check. Far above what any needs, so that a busy machine does not fail it.
const LIMIT: Duration = Duration::from_secs(60);

fn server() -> String {
    std::env::var("ZK").unwrap_or_else(|_| "127.0.0.1:2181".into())
}

async fn open() -> Result<Client, Error> {
    Client::connector()
        .with_session_timeout(Duration::from_secs(30))
        .connect(&server())
        .await
}

/// A client in a chroot of the check's own.
async fn open_in(root: &str) -> Result<Client, Error> {
    let client = open().await?;
    match client
        .mkdir(root, &CreateMode::Persistent.with_acls(Acls::anyone_all()))
        .await
    {
        Ok(()) | Err(Error::NodeExists) => {}
        Err(error) => return Err(error),
    }
    client
        .chroot(root.to_owned())
        .map_err(|_| Error::BadArguments(&"chroot"))
}

macro_rules! expect {
    ($left:expr, $right:expr) => {
        let (left, right) = ($left, $right);
        if left != right {
            return Err(format!("line {}: {left:?} is not {right:?}", line!()).into());
        }
    };
}

async fn operations(root: String) -> Outcome {
    let client = open_in(&root).await?;
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (stat, _) = client.create("/a", b"one", &open).await?;
    expect!(client.get_data("/a").await?, (b"one".to_vec(), stat));
    expect!(client.set_data("/a", b"two", Some(0)).await?.version, 1);
    expect!(
        client.set_data("/a", b"three", Some(0)).await.unwrap_err(),
        Error::BadVersion
    );
    expect!(client.create("/a", b"", &open).await.unwrap_err(), Error::NodeExists);
    expect!(client.create("/none/b", b"", &open).await.unwrap_err(), Error::NoNode);
    client.create("/a/b", b"", &open).await?;
    expect!(client.delete("/a", None).await.unwrap_err(), Error::NotEmpty);
    expect!(client.list_children("/a").await?, vec!["b".to_owned()]);
    let (children, stat) = client.get_children("/a").await?;
    expect!((children.len(), stat.num_children, stat.cversion), (1, 1, 1));
    expect!(client.count_descendants_number("/").await?, 2);
    client.sync("/").await?;
    client.delete("/a/b", Some(0)).await?;
    expect!(client.check_stat("/a/b").await?, None);
    client.get_config().await?;
    Ok(())
}

async fn modes(root: String) -> Outcome {
    let client = open_in(&root).await?;
    let sequential = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    expect!(
        client.create("/s-", b"", &sequential).await?.1.to_string(),
        "0000000000"
    );
    let (stat, _) = client.create("/e", b"", &ephemeral).await?;
    expect!(stat.ephemeral_owner == 0, false);
    expect!(
        client.create("/s-", b"", &sequential).await?.1.to_string(),
        "0000000002"
    );
    expect!(client.list_ephemerals("/").await?, vec!["/e".to_owned()]);
    let observer = open_in(&root).await?;
    let (_, watcher) = observer.check_and_watch_stat("/e").await?;
    drop(client);
    expect!(watcher.changed().await.event_type, EventType::NodeDeleted);
    observer
        .create("/c", b"", &CreateMode::Container.with_acls(Acls::anyone_all()))
        .await?;
    let ttl = CreateMode::Persistent
        .with_acls(Acls::anyone_all())
        .with_ttl(Duration::from_secs(600));
    observer.create("/t", b"", &ttl).await?;
    Ok(())
}

async fn watches(root: String) -> Outcome {
    let client = open_in(&root).await?;
    let other = open_in(&root).await?;
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (_, created) = client.check_and_watch_stat("/w").await?;
    other.create("/w", b"", &open).await?;
    expect!(created.changed().await.event_type, EventType::NodeCreated);
    let (_, _, changed) = client.get_and_watch_data("/w").await?;
    let (_, _, children) = client.get_and_watch_children("/w").await?;
    let mut persistent = client.watch("/w", AddWatchMode::Persistent).await?;
    let mut recursive = client.watch("/", AddWatchMode::PersistentRecursive).await?;
    other.set_data("/w", b"x", None).await?;
    other.create("/w/c", b"", &open).await?;
    expect!(changed.changed().await.event_type, EventType::NodeDataChanged);
    expect!(children.changed().await.event_type, EventType::NodeChildrenChanged);
    expect!(persistent.changed().await.event_type, EventType::NodeDataChanged);
    expect!(persistent.changed().await.event_type, EventType::NodeChildrenChanged);
    let event = recursive.changed().await;
    expect!(
        (event.event_type, event.path.as_str()),
        (EventType::NodeDataChanged, "/w")
    );
    let event = recursive.changed().await;
    expect!(
        (event.event_type, event.path.as_str()),
        (EventType::NodeCreated, "/w/c")
    );
    drop(persistent);
    Ok(())
}

async fn multis(root: String) -> Outcome {
    let client = open_in(&root).await?;
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let mut writer = client.new_multi_writer();
    writer.add_create("/m", b"1", &open)?;
    writer.add_set_data("/m", b"2", Some(0))?;
    writer.add_check_version("/m", 1)?;
    expect!(writer.commit().await?.len(), 3);
    writer.add_delete("/m", None)?;
    writer.add_check_version("/", 99)?;
    expect!(writer.commit().await.is_err(), true);
    let mut reader = client.new_multi_reader();
    reader.add_get_data("/m")?;
    reader.add_get_children("/")?;
    expect!(reader.commit().await?.len(), 2);
    expect!(client.get_data("/m").await?.0, b"2".to_vec());
    Ok(())
}

async fn rights(root: String) -> Outcome {
    let owner = open_in(&root).await?;
    let stranger = open_in(&root).await?;
    owner.auth("digest", b"rust:secret").await?;
    owner
        .create("/mine", b"x", &CreateMode::Persistent.with_acls(Acls::creator_all()))
        .await?;
    expect!(stranger.get_data("/mine").await.unwrap_err(), Error::NoAuth);
    expect!(owner.get_data("/mine").await?.0, b"x".to_vec());
    let users = owner.list_auth_users().await?;
    expect!(
        users
            .iter()
            .any(|user| user.scheme() == "digest" && user.user() == "rust"),
        true
    );
    let (acls, stat) = owner.get_acl("/mine").await?;
    expect!((acls.len(), acls[0].scheme(), stat.aversion), (1, "digest", 0));
    expect!(owner.set_acl("/mine", &acls, Some(0)).await?.aversion, 1);
    Ok(())
}

async fn sessions(root: String) -> Outcome {
    let client = Client::connector()
        .with_session_timeout(Duration::from_secs(30))
        .with_detached()
        .connect(&server())
        .await?;
    let path = format!("{root}-e");
    client
        .create(&path, b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all()))
        .await?;
    let id = client.session_id();
    let session = client.into_session();
    let resumed = Client::connector().with_session(session).connect(&server()).await?;
    expect!(resumed.session_id(), id);
    expect!(resumed.list_ephemerals("/").await?, vec![path]);
    Ok(())
}

async fn check(name: &str, body: impl Future<Output = Outcome> + Send + 'static) -> bool {
    let outcome = match tokio::time::timeout(LIMIT, tokio::spawn(body)).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(late) => Err(late.to_string()),
    };
    match &outcome {
        Ok(()) => println!("ok {name}"),
        Err(reason) => println!("FAIL {name}: {}", reason.replace('\n', " ")),
    }
    outcome.is_ok()
}

#[tokio::main]
async fn main() {
    let root = |name: &str| format!("/rust-{}-{name}", std::process::id());
    let passed = [
        check(
            "create, read, set, list, count, sync, delete",
            operations(root("operations")),
        )
        .await,
        check("sequential, ephemeral, container and TTL znodes", modes(root("modes"))).await,
        check("watches: one-shot, persistent, recursive", watches(root("watches"))).await,
        check("multi of writes and of reads", multis(root("multis"))).await,
        check("digest authentication, ACLs, whoAmI", rights(root("rights"))).await,
        check("a detached session is resumed", sessions(root("sessions"))).await,
    ];
    std::process::exit(i32::from(passed.contains(&false)));
}

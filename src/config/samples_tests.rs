//! The files of `conf/` say what this room, and each other, understand.

use super::*;
use std::path::Path;

const SAMPLE: &str = include_str!("../../conf/zoo.cfg");
const UNIT: &str = include_str!("../../conf/menagerie.service");
const IMAGE_SAMPLE: &str = include_str!("../../conf/container/zoo.cfg");
const IMAGE: &str = include_str!("../../conf/container/Containerfile");

fn load_text(text: &str) -> Loaded {
    load(&Sources {
        base: Base::File {
            path: Path::new("zoo.cfg"),
            text,
        },
        environment: &|_| None,
        overrides: &[],
        read: &|path| Ok((path == Path::new("/var/lib/menagerie/myid")).then(|| "1\n".to_owned())),
    })
    .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn the_sample_files_load_without_a_word() {
    let sample = load_text(SAMPLE);
    assert_eq!(sample.notices, []);
    assert_eq!(sample.config.listeners, Config::embedded_default().listeners);
    let image = load_text(IMAGE_SAMPLE);
    assert_eq!(image.notices, []);
    assert_eq!(image.config.storage.data_dir, Path::new("/data"));
    assert_eq!(image.config.storage.data_log_dir, Path::new("/datalog"));
}

#[test]
fn every_line_that_the_sample_comments_out_shows_the_default_or_makes_the_ensemble_of_three() {
    let sample = load_text(SAMPLE).config;
    let (mut defaults, mut ensemble) = (0, SAMPLE.to_owned());
    for line in SAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
    {
        if line.starts_with("server.") {
            ensemble = ensemble.replace(&format!("#{line}"), line);
            continue;
        }
        let loaded = load_text(&SAMPLE.replace(&format!("#{line}"), line));
        assert_eq!(loaded.notices, [], "{line}");
        let mut config = loaded.config;
        config.origin.clone_from(&sample.origin);
        config.admin.required = false;
        assert_eq!(config, sample, "{line}");
        defaults += 1;
    }
    assert!(defaults > 5);
    let loaded = load_text(&ensemble);
    assert_eq!(loaded.notices, []);
    assert!(matches!(loaded.config.cluster.membership, Membership::Ensemble(ensemble) if ensemble.servers.len() == 3));
}

#[test]
fn the_systemd_unit_runs_the_sample_where_it_may_write() {
    let mut section = "";
    let mut settings = Vec::new();
    for line in UNIT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            assert!(["Unit", "Service", "Install"].contains(&name), "{line}");
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not a setting: {line}"));
        settings.push((section, key, value));
    }
    let value = |key: &str| {
        settings
            .iter()
            .find(|(_, name, _)| *name == key)
            .map(|(_, _, value)| *value)
    };
    assert_eq!(
        value("ExecStart"),
        Some("/usr/bin/menagerie serve /etc/menagerie/zoo.cfg")
    );
    let state = format!("/var/lib/{}", value("StateDirectory").unwrap());
    assert_eq!(load_text(SAMPLE).config.storage.data_dir, Path::new(&state));
    assert_eq!(value("WorkingDirectory"), Some(state.as_str()));
    assert!(settings.contains(&("Install", "WantedBy", "multi-user.target")));
}

#[test]
fn the_image_serves_its_sample_with_the_directories_and_ports_that_it_declares() {
    // Continuation lines joined, as a builder reads them.
    let text = IMAGE.replace("\\\n", " ");
    let instructions: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no arguments: {line}")))
        .collect();
    let known = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ];
    for (name, arguments) in &instructions {
        assert!(known.contains(name), "{name} {arguments}");
    }
    let last = |name: &str| {
        instructions
            .iter()
            .rfind(|(other, _)| *other == name)
            .map(|(_, arguments)| *arguments)
    };
    assert_eq!(last("ENTRYPOINT"), Some(r#"["menagerie"]"#));
    assert_eq!(last("CMD"), Some(r#"["serve", "/conf/zoo.cfg"]"#));
    assert!(instructions.contains(&(
        "COPY",
        "--chown=zookeeper:zookeeper conf/container/zoo.cfg /conf/zoo.cfg"
    )));

    let config = load_text(IMAGE_SAMPLE).config;
    let volumes = format!(
        r#"["{}", "{}"]"#,
        config.storage.data_dir.display(),
        config.storage.data_log_dir.display()
    );
    assert_eq!(last("VOLUME"), Some(volumes.as_str()));
    let ports: Vec<&str> = last("EXPOSE").unwrap().split(' ').collect();
    assert!(ports.contains(&config.listeners.client.unwrap().port.to_string().as_str()));
    assert!(ports.contains(&config.admin.address.port.to_string().as_str()));
    assert!(config.four_letter_words.allows("srvr"), "the health check asks for it");
}

use super::*;
use std::path::Path;

/// Loads `text` as a file named `zoo.cfg`, with other files, environment variables and overrides beside it.
#[derive(Default)]
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
}

#[test]
fn a_sample_file_loads_without_a_word() {
    let text = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/data\nclientPort=2181\n";
    let loaded = Scene {
        text,
        ..Scene::default()
    }
    .load()
    .unwrap();
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
}

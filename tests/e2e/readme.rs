//! The steps of README.md under "By hand" work as written.

use std::{fs, path::Path, process::Command};

use crate::process::{free_address, program, run};

#[test]
fn setting_up_by_hand_works_as_the_readme_says() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## By hand").nth(1).unwrap();
    let script = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();

    // In place of its paths and ports: the programs that are built already, and ports that are free.
    let samples = tempfile::tempdir().unwrap();
    let bin = program("certctl").parent().unwrap().to_str().unwrap().to_owned();
    let mut places = vec![
        ("cargo build --release --workspace --bins".to_owned(), String::new()),
        ("$PWD/target/release".to_owned(), bin),
        ("deploy/$name".to_owned(), format!("{}/$name", samples.path().display())),
    ];
    for port in ["7443", "7444", "7480", "7481", "7482", "8443", "8080", "9000"] {
        places.push((port.to_owned(), free_address().port().to_string()));
    }
    let mut script = script.to_owned();
    for (from, to) in &places {
        assert!(script.contains(from) || from.starts_with('7'), "the README no longer has {from}");
        script = script.replace(from, to);
    }
    for name in ["certstore", "certman", "certedge"] {
        let mut sample = fs::read_to_string(Path::new("deploy").join(format!("{name}.toml"))).unwrap();
        for (from, to) in &places {
            sample = sample.replace(from, to);
        }
        // Not every machine that runs tests grants as many files as an edge wants.
        sample = sample.replace("= 10000\n", "= 1000\n");
        fs::write(samples.path().join(format!("{name}.toml")), sample).unwrap();
    }

    let output = run(Command::new("timeout").args(["60", "bash", "-e", "-m", "-c", &script]).env("NO_PROXY", "*"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("hello over HTTPS"), "{text}");
}

//! kill -9 under load.

use std::{thread, time::Duration};

use crate::{
    count,
    workload::{Writer, check, noted, places},
};

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (store, notes) = places(directory.path());
    let kills = count("CERTSEAL_KILLS", 10);
    for round in 0..kills {
        let before = noted(&notes).lines().count();
        let mut writer = Writer::start(&store, &notes);
        writer.progress(&notes, before, 40);
        thread::sleep(Duration::from_millis(31 * (round % 8)));
        writer.kill();
        check(&store, &noted(&notes));
    }
    println!("{kills} kills, {} acknowledged changes, 0 lost", noted(&notes).lines().count());
}

#![allow(clippy::unwrap_used)]

use super::*;

fn log(step: u64) -> TrainLog {
    TrainLog {
        step,
        epoch: 0.1,
        loss: 1.5,
        learning_rate: 2e-5,
        grad_norm: f64::NAN,
        seconds: 1.0,
        rows_per_second: 40.0,
        told: Vec::new(),
    }
}

#[test]
fn a_run_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
    let mut lines = Vec::new();
    let mut echo = |line: &str| lines.push(line.to_owned());
    let mut recorder = Recorder::begin(&folder, "a", None, &mut echo).unwrap();
    let mut evaluation = Metrics { primary: "dev_x".into(), ..Metrics::default() };
    evaluation.push("dev_x", 0.75);
    recorder.event(&Event::Phase("train"));
    assert_eq!(status::read(&folder).unwrap().phase, "train");
    recorder.event(&Event::Step { step: 1, total: 20 });
    recorder.event(&Event::Log(log(1)));
    recorder.event(&Event::Evaluation { step: 1, epoch: 0.1, metrics: &evaluation, seconds: 0.5, tables: &[] });
    recorder.event(&Event::Warning("careful"));
    assert!(recorder.began());
    recorder.finish(&Ending::Done("VERDICT: WIN")).unwrap();

    let status = status::read(&folder).unwrap();
    assert_eq!((status.state, status.step, status.total_steps), (State::Done, 1, 20));
    assert_eq!(status.metrics["eval_dev_x"], 0.75);
    assert!(!status.metrics.contains_key("grad_norm"));
    assert_eq!(files::read_text(&folder.metrics_file()).unwrap().lines().count(), 2);
    let text = files::read_text(&folder.log_file("a")).unwrap();
    assert!(text.contains("step 1/20") && text.contains("warning: careful"), "{text}");
    assert!(lines.iter().any(|l| l.contains("dev_x 0.7500")), "{lines:?}");
    let captured = report::captured::Captured::read(&folder);
    assert_eq!((captured.last.map(|seen| seen.step), captured.warnings), (Some(1), vec!["careful".to_owned()]));
}

#[test]
fn metrics_made_again_appear_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
    let baseline = Metrics::default();
    let lines = |checkpoint: Option<u64>, steps: std::ops::RangeInclusive<u64>| -> Vec<u64> {
        let mut echo = |_: &str| {};
        let mut recorder = Recorder::begin(&folder, "a", checkpoint, &mut echo).unwrap();
        assert_eq!(status::read(&folder).unwrap().step, checkpoint.unwrap_or(0));
        if checkpoint.is_none() {
            recorder.event(&Event::Evaluation { step: 0, epoch: 0.0, metrics: &baseline, seconds: 0.5, tables: &[] });
        }
        for step in steps {
            recorder.event(&Event::Step { step, total: 20 });
            recorder.event(&Event::Log(log(step)));
        }
        recorder.finish(&Ending::Error(&Error::cancelled("stopped"))).unwrap();
        let text = files::read_text(&folder.metrics_file()).unwrap();
        let step = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap();
        text.lines().map(step).collect()
    };
    assert_eq!(lines(None, 1..=3), [0, 1, 2, 3]);
    assert_eq!(lines(Some(2), 3..=4), [0, 1, 2, 3, 4]);
    assert_eq!(lines(Some(0), 1..=1), [0, 1]);
    assert_eq!(lines(None, 1..=2), [0, 1, 2]);
}

#[test]
fn lines_for_people_stay_short() {
    assert_eq!((rate(999.94).as_str(), rate(1000.4).as_str()), ("999.9", "1000"));
    assert_eq!(shortened("short"), "short");
    let long = shortened(&"eval_dev_cosine_ndcg@10, ".repeat(30));
    assert!(long.len() < 300 && long.contains("ndcg@10 ... (the whole"), "{long}");
}

#[test]
fn endings_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    for (error, state, code) in [
        (Error::cancelled("stopped at step 3"), State::Cancelled, 130),
        (Error::train("loss is NaN").with_hint("lower the learning rate"), State::Failed, 1),
    ] {
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let mut echo = |_: &str| {};
        Recorder::begin(&folder, "a", None, &mut echo).unwrap().finish(&Ending::Error(&error)).unwrap();
        let status = status::read(&folder).unwrap();
        assert_eq!((status.state, status.exit_code), (state, Some(code)));
        assert_eq!(status.hint.as_deref(), error.hint());
    }
}

#[test]
fn a_panic_leaves_a_failed_run() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
    let mut echo = |_: &str| {};
    drop(Recorder::begin(&folder, "a", None, &mut echo).unwrap());
    assert_eq!(status::read(&folder).unwrap().state, State::Failed);
}

#[test]
fn the_heart_beats_without_events() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
    let mut echo = |_: &str| {};
    let recorder = Recorder::begin(&folder, "a", None, &mut echo).unwrap();
    let first = status::read(&folder).unwrap().heartbeat;
    std::thread::sleep(HEARTBEAT + Duration::from_millis(700));
    assert_ne!(status::read(&folder).unwrap().heartbeat, first);
    recorder.finish(&Ending::Done("")).unwrap();
}

//! Plays scenarios with many seeds on all cores, and prints what was measured: median, worst, limit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::figures::{Figure, Limit};
use super::stage::Stage;
use super::{Scenario, play};

/// One seed of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub figures: Vec<Figure>,
    pub seconds: f64,
    pub datagrams: u64,
    /// What the world itself found wrong, and which numbers broke.
    pub remarks: Vec<String>,
    /// Second by second, where one seed is played.
    pub diary: String,
}

impl Run {
    /// What a stage has to say at its end.
    pub fn of(stage: &Stage, mut figures: Vec<Figure>) -> Self {
        let world = &stage.world;
        let mut remarks = Vec::new();
        if !world.faults.is_empty() {
            remarks.push(world.faults.report().trim().to_owned());
        }
        figures.push(Figure::new("faults", f64::from(u8::from(!world.faults.is_empty())), Limit::AtMost(0.0)));
        let slots = world.members.iter().flat_map(|member| &member.client.slots);
        let mut breaks = BTreeMap::<&str, u64>::new();
        for (what, times) in slots.filter_map(|slot| slot.viewer.as_ref()).flat_map(|v| &v.continuity.breaks) {
            *breaks.entry(what).or_default() += times;
        }
        remarks.extend(breaks.into_iter().map(|(what, times)| format!("{what} ({times} ×)")));
        let seconds = (world.now - world.start).as_secs_f64();
        Self { figures, seconds, datagrams: world.trace.datagrams, remarks, diary: String::new() }
    }
}

/// What became of the table.
pub struct Measured {
    pub text: String,
    /// Scenario, seed, figure and limit of each that failed.
    pub failures: Vec<String>,
}

struct Done {
    scenario: usize,
    seed: u64,
    run: Result<Run, String>,
    took: Duration,
}

/// Plays them all.
pub fn measure(scenarios: &[Scenario], seeds: &[u64]) -> Measured {
    let started = Instant::now();
    let jobs: Vec<(usize, u64)> =
        (0..scenarios.len()).flat_map(|scenario| seeds.iter().map(move |seed| (scenario, *seed))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((scenario, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let began = Instant::now();
                    let run = catch_unwind(AssertUnwindSafe(|| play(scenarios[scenario], seed)));
                    let run = run.map_err(|panic| said(panic.as_ref()));
                    let took = began.elapsed();
                    done.lock().expect("nobody panics with it").push(Done { scenario, seed, run, took });
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|done| (done.scenario, done.seed));
    let mut measured = Measured { text: String::new(), failures: Vec::new() };
    for (index, scenario) in scenarios.iter().enumerate() {
        let runs: Vec<&Done> = done.iter().filter(|done| done.scenario == index).collect();
        measured.row(scenario.name, &runs);
    }
    measured.summarize(scenarios, &done);
    let took: Duration = done.iter().map(|done| done.took).sum();
    let seconds: f64 = done.iter().filter_map(|done| done.run.as_ref().ok()).map(|run| run.seconds).sum();
    let _ = writeln!(
        measured.text,
        "\n{} failures; {seconds:.0} virtual seconds in {:.0} s on {cores} cores, {:.1} ms of a core for each",
        measured.failures.len(),
        started.elapsed().as_secs_f64(),
        took.as_secs_f64() * 1000.0 / seconds.max(1.0),
    );
    measured
}

/// What a panic said.
pub fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Measured {
    /// One line for each scenario: how many seeds hold all limits, and medians of what matters most.
    fn summarize(&mut self, scenarios: &[Scenario], done: &[Done]) {
        const COLUMNS: [&str; 6] = [
            "usual height",
            "pictures a second",
            "longest gap, ms",
            "switches in 30 s",
            "estimate, kbit/s",
            "received, kbit/s",
        ];
        let _ = write!(self.text, "\n{:<26} {:>8}", "medians", "hold");
        COLUMNS.iter().for_each(|name| {
            let _ = write!(self.text, " {name:>18}");
        });
        for (index, scenario) in scenarios.iter().enumerate() {
            let runs: Vec<&Done> = done.iter().filter(|done| done.scenario == index).collect();
            let good: Vec<&Run> = runs.iter().filter_map(|done| done.run.as_ref().ok()).collect();
            let hold = good.iter().filter(|run| run.figures.iter().all(Figure::holds)).count();
            let _ = write!(self.text, "\n{:<26} {:>8}", scenario.name, format!("{hold} of {}", runs.len()));
            for name in COLUMNS {
                let figures = good.iter().filter_map(|run| run.figures.iter().find(|figure| figure.name == name));
                let mut values: Vec<f64> = figures.map(|figure| figure.value).filter(|value| !value.is_nan()).collect();
                values.sort_by(f64::total_cmp);
                let median = values.get(values.len() / 2).map_or("-".to_owned(), |value| format!("{value:.1}"));
                let _ = write!(self.text, " {median:>18}");
            }
        }
        self.text.push('\n');
    }

    fn row(&mut self, name: &str, runs: &[&Done]) {
        let failures = self.failures.len();
        let good: Vec<(u64, &Run)> = runs.iter().filter_map(|d| Some((d.seed, d.run.as_ref().ok()?))).collect();
        for done in runs {
            if let Err(panic) = &done.run {
                self.failures.push(format!("{name}, seed {}: panicked: {panic}", done.seed));
            }
        }
        let mut lines = String::new();
        let figures = good.first().map(|(_, run)| run.figures.clone()).unwrap_or_default();
        for figure in &figures {
            let same = |run: &Run| run.figures.iter().find(|other| other.name == figure.name).cloned();
            let all: Vec<(u64, Figure)> = good.iter().filter_map(|(seed, run)| Some((*seed, same(run)?))).collect();
            lines.push_str(&line(figure, &all));
            for (seed, figure) in all.iter().filter(|(_, figure)| !figure.holds()) {
                let limit = limit(figure.limit);
                self.failures.push(format!("{name}, seed {seed}: {} is {:.1}, {limit}", figure.name, figure.value));
            }
        }
        let count = runs.len().max(1) as f64;
        let seconds: f64 = good.iter().map(|(_, run)| run.seconds).sum();
        let took: f64 = runs.iter().map(|done| done.took.as_secs_f64()).sum();
        let datagrams: u64 = good.iter().map(|(_, run)| run.datagrams).sum();
        let verdict = if self.failures.len() == failures { "holds" } else { "FAILS" };
        let _ = writeln!(
            self.text,
            "\n{name}: {verdict}; {} seeds of {:.0} s, {:.0} datagrams and {:.1} ms a virtual second",
            runs.len(),
            seconds / count,
            datagrams as f64 / seconds.max(1.0),
            took * 1000.0 / seconds.max(1.0),
        );
        self.text.push_str(&lines);
        let mut remarks: Vec<&String> = good.iter().flat_map(|(_, run)| &run.remarks).collect();
        remarks.sort();
        remarks.dedup();
        remarks.iter().take(4).for_each(|remark| {
            let _ = writeln!(self.text, "    {remark}");
        });
        good.iter().for_each(|(_, run)| self.text.push_str(&run.diary));
    }
}

fn limit(limit: Limit) -> String {
    match limit {
        Limit::None => String::new(),
        Limit::AtMost(most) => format!("at most {most}"),
        Limit::AtLeast(least) => format!("at least {least}"),
    }
}

/// Median and worst of a figure over the seeds.
fn line(figure: &Figure, all: &[(u64, Figure)]) -> String {
    let mut values: Vec<(f64, u64)> =
        all.iter().map(|(seed, figure)| (figure.value, *seed)).filter(|(value, _)| !value.is_nan()).collect();
    values.sort_by(|one, other| one.0.total_cmp(&other.0));
    let failed = all.iter().filter(|(_, figure)| !figure.holds()).count();
    let median = values.get(values.len() / 2);
    let worst = if matches!(figure.limit, Limit::AtLeast(_)) { values.first() } else { values.last() };
    let (Some((median, _)), Some((worst, seed))) = (median, worst) else {
        return format!("  {:<34} not measured\n", figure.name);
    };
    let failed = if failed > 0 { format!("{failed} fail") } else { String::new() };
    let limit = limit(figure.limit);
    format!("  {:<34} {median:>9.1} {worst:>9.1} (seed {seed:>2})  {limit:<16} {failed}\n", figure.name)
}

//! A run told second by second: what a viewer's link could carry, what the server thought, what was seen.

use std::fmt::Write as _;
use std::time::Duration;

use super::stage::Stage;
use super::watch::Window;

/// The diary of every viewer.
pub fn diary(stage: &Stage) -> String {
    let seconds = (stage.world.now - stage.world.start).as_secs();
    let publishers: Vec<usize> =
        (0..stage.world.members.len()).filter(|member| stage.world.members[*member].client.config.camera).collect();
    let mut text = String::new();
    for viewer in stage.audience() {
        let _ = writeln!(
            text,
            "\n    member {viewer}: rates in kbit/s; of each camera the height, pictures, temporal layers"
        );
        let _ = writeln!(text, "    second  capacity  estimate  received  dropped  asked  cameras");
        for second in 0..seconds {
            let _ = writeln!(text, "    {second:>6}{}", line(stage, viewer, &publishers, second));
        }
    }
    text
}

fn line(stage: &Stage, viewer: usize, publishers: &[usize], second: u64) -> String {
    let window = Window::new(second as f64, second as f64 + 1.0);
    let at = stage.world.start + Duration::from_secs(second);
    let rate = |bps: Option<f64>| bps.map_or("-".to_owned(), |bps| format!("{:.0}", bps / 1000.0));
    let carried = stage.carried(viewer, window);
    let asked = stage.viewers(viewer, true).flat_map(|viewer| &viewer.keyframe_requests);
    let asked = asked.filter(|asked| (at..at + Duration::from_secs(1)).contains(*asked)).count();
    let mut line = format!(
        "  {:>8}  {:>8}  {:>8.0}  {:>7}  {asked:>5} ",
        rate(stage.world.net.capacity_down(stage.world.members[viewer].host, at)),
        rate(stage.estimate(viewer, window)),
        carried.bytes as f64 * 8.0 / 1000.0,
        carried.overflowed + carried.lost,
    );
    for publisher in publishers {
        let watch = stage.watch(viewer, *publisher);
        let shown: Vec<_> = watch.shown.iter().filter(|(at, _)| (window.from..window.to).contains(at)).collect();
        let layers = shown.iter().map(|(_, shown)| shown.temporal + 1).max().unwrap_or(0);
        let track = stage.camera(*publisher);
        let paused = stage
            .looks
            .iter()
            .any(|look| (window.from..window.to).contains(&look.at) && look.paused.contains(&(viewer, track)));
        let heights: Vec<u16> = shown.iter().map(|(_, shown)| shown.height()).collect();
        let (low, high) = (heights.iter().min().unwrap_or(&0), heights.iter().max().unwrap_or(&0));
        let height = if low == high { format!("{low}") } else { format!("{low}-{high}") };
        let paused = if paused { "p" } else { "" };
        let _ = write!(line, " {:>13}", format!("{height}x{}t{layers}{paused}", shown.len()));
    }
    line
}

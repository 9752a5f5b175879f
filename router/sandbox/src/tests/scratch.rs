use super::*;
use std::time::{Duration, Instant};
#[test]
fn scratch() {
    let Ok(path) = std::env::var("SCRATCH") else { return };
    let extra = std::env::var("FLAGS").unwrap_or_default();
    v8::V8::set_flags_from_string(&extra);
    let ms = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let pool = pool_with(Options { threads: NonZeroUsize::MIN, heap_bytes_max: ms("HEAP", 48) as usize * 1024 * 1024, batch_timeout: Duration::from_millis(ms("BATCH", 200)), row_timeout: Duration::from_millis(ms("ROW", 50)), ..Options::default() });
    let started = Instant::now();
    for statement in std::fs::read_to_string(path).unwrap().lines() {
        let t = Instant::now();
        let transform = load(&pool, &each(&format!("row => {{ if (row.bad) {{ {statement} }} return {{n: row.n}}; }}")));
        let report = transform.run(&batch([r#"{"n":2,"bad":1}"#]));
        let text = format!("{:?}", report.results[0]);
        println!("{:?} {statement}\n   -> {}", t.elapsed(), text.chars().take(200).collect::<String>());
    }
    println!("{:?} {:?}", started.elapsed(), pool.stats());
}

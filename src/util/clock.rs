//! Wall-clock time as text, and durations as people say them.

/// Now, UTC, as `2026-08-21T10:20:30Z`.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| jiff::Timestamp::now()).to_string()
}

/// Now, UTC, as `20260821-102030`, for names.
#[must_use]
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string()
}

/// The time of a [`stamp`], as `2026-08-21T10:20:30Z`.
#[must_use]
pub fn from_stamp(stamp: &str) -> Option<String> {
    let time = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", stamp).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.to_string())
}

/// When a file was last changed, UTC, as [`now`] says it; now where the system does not tell.
#[must_use]
pub fn modified(path: &std::path::Path) -> String {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let stamp = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
    stamp.and_then(|stamp| stamp.round(jiff::Unit::Second).ok()).map_or_else(now, |stamp| stamp.to_string())
}

/// `0.8 s`, `42 s`, `3 min 5 s`, `2 h 7 min`.
#[must_use]
pub fn human(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    let whole = seconds.round() as u64;
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stamps_are_read_back() {
        assert_eq!(super::from_stamp("20260821-102030").as_deref(), Some("2026-08-21T10:20:30Z"));
        assert!(super::from_stamp(&super::stamp()).is_some());
        assert_eq!(super::from_stamp("stsb-cosent"), None);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(super::human(0.84), "0.8 s");
        assert_eq!(super::human(42.3), "42 s");
        assert_eq!(super::human(185.0), "3 min 5 s");
        assert_eq!(super::human(7620.0), "2 h 7 min");
        assert_eq!(super::human(f64::NAN), "unknown");
    }
}

//! `vswitchd demo`.

/// Runs it.
///
/// # Errors
/// Always, for now.
pub fn run(_keep: bool) -> anyhow::Result<()> {
    Err(anyhow::anyhow!("the demo is not there yet"))
}

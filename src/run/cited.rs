//! What recipes say of the page's claims: a slip in a name there would be passed over, and nothing said of the claim.

use anyhow::bail;
use meshgate_fixtures::{Claims, Recipe, did_you_mean};

/// Refuses `claims` of a recipe that speak of a case or a claim which there is not. `place` is where they stand.
///
/// # Errors
/// The first such name, and what may be meant by it.
pub fn check(place: &str, recipe: &Recipe, claims: &Claims) -> anyhow::Result<()> {
    let cases = || meshgate_suites::cases().into_iter().map(|case| case.id);
    for (case, says) in &recipe.claims {
        if !cases().any(|known| known == case) {
            let meant = did_you_mean(case, cases());
            bail!("{place}: claims: no case \"{case}\"{meant} (see `meshgate list cases`)");
        }
        if let Some(claim) = says.claims().find(|claim| claims.get(claim).is_none()) {
            let meant = did_you_mean(claim, claims.0.iter().map(|known| known.id.as_str()));
            bail!("{place}: claims: {case}: no claim \"{claim}\"{meant} (see `meshgate list claims`)");
        }
    }
    Ok(())
}

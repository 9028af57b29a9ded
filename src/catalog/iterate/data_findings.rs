//! What is wrong with the data is seen to before anything else is changed.

use super::{Change, Facts, Rule, Step};
use crate::catalog::findings::Severity;

/// Leaks, rows that cannot be used, labels that are all the same: a score on them compares nothing.
pub(super) const RULE: Rule = Rule {
    id: "data-findings",
    summary: "Errors that `tallow inspect` finds in the data (leaks, unusable rows, columns in a wrong order) come first.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let errors = facts.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| Step::Change(Change::by_hand(finding.fix.as_str(), finding.what.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;
    use crate::catalog::findings::Finding;

    #[test]
    fn errors_are_mended_and_warnings_told() {
        let finding = |severity| Finding { severity, what: "12 rows leak".into(), fix: "take them out".into() };
        let mut case = Case::pairs();
        case.findings = vec![finding(Severity::Error), finding(Severity::Warning)];
        let proposal = case.propose();
        assert_eq!((proposal.rule.as_str(), proposal.what.as_str()), (RULE.id, "take them out"));
        case.findings.remove(0);
        let proposal = case.propose();
        assert_ne!(proposal.rule, RULE.id);
        assert_eq!(proposal.mind, ["12 rows leak: take them out"]);
    }
}

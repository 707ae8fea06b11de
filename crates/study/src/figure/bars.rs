pub(super) fn draw(_: &super::GroupedBars) -> String {
    String::new()
}

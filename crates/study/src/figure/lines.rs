pub(super) fn draw(_: &super::Lines) -> String {
    String::new()
}

#[kapsel_testdb::test]
async fn test(_pool: i32) {}

fn main() {}

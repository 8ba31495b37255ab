#[kapsel_testdb::test]
async fn test() {}

fn main() {}

#[kapsel_testdb::test(connections = 3)]
async fn test() {}

fn main() {}

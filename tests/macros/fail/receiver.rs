struct Suite;

impl Suite {
    #[kapsel_testdb::test]
    async fn test(self) {}
}

fn main() {}

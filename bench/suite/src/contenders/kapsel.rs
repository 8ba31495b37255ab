//! kapsel-testdb as its README says: a clone of its own for who wants one, else a transaction on the run's shared clone. With the
//! keeper, without it, or without any setup script: that is the nextest profile's business, the test is the same.

use kapsel_testdb::TestDb;

use crate::body::work;
use crate::{Outcome, Wants};

pub async fn test(wants: Wants) -> Outcome {
    match wants {
        Wants::Own => {
            let db = TestDb::lease().await?;
            work(&mut *db.pool().acquire().await?).await?;
            // With the look for leaks: what `#[kapsel_testdb::test]` does.
            db.release().await;
        }
        Wants::Shared => work(&mut *TestDb::begin().await?).await?,
    }
    Ok(())
}

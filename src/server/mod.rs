//! Assembly: start and stop order, driver, applier, one session pipeline per connection.

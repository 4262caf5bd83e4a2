// Package suite names the client, so that the module's file of checksums covers it. What runs are the client's
// own tests, see run.
package suite

import _ "github.com/go-zookeeper/zk"

// Package cache keeps what has been fetched or decoded. [Memory] holds decoded
// blocks in memory. The package knows nothing of HTTP, FUSE or formats.
package cache

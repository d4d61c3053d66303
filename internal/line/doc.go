// Package line is the whole way from an image's bytes to its disk: what SOURCE is, and how
// the image there is reached, opened, cached and proven. [Open] joins the layers; commands
// get a [Line] by [Options], whose flags are those of every SOURCE.
//
//   - SOURCE and its flags: location.go, options.go; who we are to servers: access.go, header.go, proxies.go
//   - the line: line.go joins it, state.go says how it is, identity.go which image it is of
//   - the file that the image is, or lies in: file.go; on servers: remote.go, mirrors.go; what is
//     kept of it on disk: cached.go, kept.go, offline.go
//   - the proof of the content: manifest.go (flags), proof.go, facts.go, seen.go
//   - what is on the disk: disk.go, images.go
//   - what is fetched before it is asked for: profile.go
//   - what fails: failure.go (exit statuses), hint.go (what may help)
package line

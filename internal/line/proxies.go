package line

import (
	"os"
	"slices"
	"strings"
)

// proxyVariables are those of the environment that may hold the password of a
// proxy. The process in the background gets them with its options.
var proxyVariables = []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"}

// proxies returns the proxyVariables that are set.
func proxies() map[string]string {
	set := make(map[string]string)
	for _, name := range proxyVariables {
		if value, ok := os.LookupEnv(name); ok {
			set[name] = value
		}
	}
	return set
}

// WithoutProxies returns an environment without the proxyVariables.
func WithoutProxies(environ []string) []string {
	return slices.DeleteFunc(environ, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(proxyVariables, name)
	})
}

// SetProxies puts the proxyVariables back. /proc does not show them then.
func (o *AccessOptions) SetProxies() {
	for name, value := range o.Proxies {
		os.Setenv(name, value)
	}
}

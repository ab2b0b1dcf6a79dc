/**
 * The server that connectrpc's conformance runner starts, once for each wire: the gate's own, with ConformanceService on it.
 * It is told on stdin what it is to serve, tells on stdout where it listens, and runs until SIGTERM. Two modules are
 * exchanged, whose stand-ins say why.
 */
import { registerHooks } from 'node:module'

const standIns = new Map(
  [
    ['/src/server/connect-error.ts', 'own-errors.ts'],
    ['/connect/dist/esm/protocol/serialization.js', 'own-serialization.ts'],
  ].map(([module = '', own = '']) => [module, new URL(own, import.meta.url).href]),
)

registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context)
    for (const [module, url] of standIns) {
      if (found.url.endsWith(module) && context.parentURL !== url) return { ...found, url, format: 'module-typescript' }
    }
    return found
  },
})

// After the hooks are there.
await import('./server.ts')

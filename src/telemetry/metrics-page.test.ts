import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { createMetrics, type Metrics } from './metrics.ts'

/** "name{label,label}" of each metric on the page. */
function documented(): string[] {
  const page = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  return [...page.slice(page.indexOf('## Metrics')).matchAll(/^\| `([a-z0-9_]+(?:\{[a-z_,]+\})?)` \|/gm)].map(
    ([, name = '']) => name,
  )
}

/** Names of all metrics that are served, with the labels of those that have a sample. */
async function served(metrics: Metrics): Promise<string[]> {
  const lines = (await metrics.render()).split('\n')
  const types = lines.flatMap((line) => {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    return name === undefined || type === undefined ? [] : [[name, type] as const]
  })
  return types.map(([name, type]) => {
    const begin = type === 'histogram' ? `${name}_count` : name
    const sample = lines.find((line) => line.startsWith(`${begin}{`)) ?? ''
    const labels = [...sample.matchAll(/[{,]([a-z_]+)=/g)].map(([, label]) => label)
    return labels.length === 0 ? name : `${name}{${labels.join(',')}}`
  })
}

/** Gives every metric of the gate's own a sample. */
function touchAll(metrics: Metrics): void {
  for (const family of Object.values(metrics)) {
    if (!isFamily(family)) continue
    const child = family.of('a', 'b', 'c', 'd')
    child.inc?.()
    child.observe?.(1)
  }
  metrics.setSources({
    databaseConnections: async () => ({ active: 1, idle: 1 }),
    redisConnections: () => 1,
    breakers: () => [{ serviceId: 's', endpointId: 'e', state: 'open' }],
    endpointHealth: () => [{ serviceId: 's', endpointId: 'e', health: { isSick: true } }],
    usageBacklog: () => 1,
    drain: () => ({ lastWriteAtMs: 1, written: 1, duplicates: 1 }),
    limitsAvailable: () => true,
    limits: () => ({ mode: 'redis', admitted: { redis: 1, open: 0, local: 0 } }),
    certificate: () => ({ expiresAtMs: 1, reloads: 1 }),
    tokenKeys: () => [{ issuer: 'i', keys: 1 }],
    events: () => ({ buffered: 1, failing: undefined }),
    domainEvents: async () => [{ name: 's', behind: 1, waiting: 1, deadLetters: 1, lagSeconds: 1 }],
    books: () => ({ checkedAtMs: 1, difference: 0, differences: 0 }),
  })
}

interface AnyFamily {
  of(...values: string[]): { inc?(): void; observe?(value: number): void }
}

function isFamily(value: unknown): value is AnyFamily {
  return typeof value === 'object' && value !== null && 'of' in value && typeof value.of === 'function'
}

test('docs/operations.md lists every metric of the gate with its labels, and no other', async () => {
  const metrics = createMetrics({ processMetrics: false })
  touchAll(metrics)
  const isOwn = (name: string): boolean => !/^(process|nodejs)_/.test(name)
  expect(documented().filter(isOwn).sort()).toEqual((await served(metrics)).sort())
})

test('it lists the metrics of the process too', async () => {
  const names = (list: string[]): string[] => list.map((name) => name.replace(/\{.*/, ''))
  const listed = names(documented())
  expect(new Set(listed).size).toBe(listed.length)
  const all = names(await served(createMetrics()))
  expect(all.filter((name) => !listed.includes(name))).toEqual([])
  // Some come from /proc.
  if (process.platform === 'linux') expect(listed.filter((name) => !all.includes(name))).toEqual([])
})

import { execFile } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FaultyGateway } from './servers.ts'

export interface Sample {
  /** Since the watch began. */
  readonly atMs: number
  /** Resident memory of each gateway; 0 while it is down. */
  readonly rssBytes: readonly number[]
  /** Largest `tollgate_usage_backlog` that a gateway shows; undefined when none could tell. */
  readonly backlog: number | undefined
  /** Calls that the gateways admitted from slices, each since its start. */
  readonly sliceAdmissions: number
  /** `status` of each gateway's /health/detailed that answered. */
  readonly health: readonly string[]
}

export interface Watch {
  readonly samples: readonly Sample[]
  stop(): Promise<void>
}

const answerTimeoutMs = 2_500

/** Looks at the gateways again and again, by their own pages and what the system says of their memory. */
export function watch(gateways: readonly FaultyGateway[], everyMs = 500): Watch {
  const samples: Sample[] = []
  const stopping = new AbortController()
  const begunMs = Date.now()

  async function look(): Promise<void> {
    while (!stopping.signal.aborted) {
      samples.push({ atMs: Date.now() - begunMs, ...(await sample(gateways, stopping.signal)) })
      await delay(everyMs, undefined, { signal: stopping.signal }).catch(() => {})
    }
  }

  const looking = look()
  return {
    samples,
    async stop() {
      stopping.abort()
      await looking
    },
  }
}

async function sample(gateways: readonly FaultyGateway[], signal: AbortSignal): Promise<Omit<Sample, 'atMs'>> {
  const pages = gateways.map(async (gateway) => {
    const { address } = gateway.current()
    const [metrics, health] = await Promise.all([
      page(`${address}/metrics`, signal),
      page(`${address}/health/detailed`, signal),
    ])
    return {
      backlog: /^tollgate_usage_backlog (\d+)/m.exec(metrics)?.[1],
      sliceAdmissions: /^tollgate_limit_slice_admissions_total (\d+)/m.exec(metrics)?.[1],
      status: /^\{"status":"(\w+)"/.exec(health)?.[1],
    }
  })
  const [rssBytes, answers] = await Promise.all([
    Promise.all(gateways.map((gateway) => rssOf(gateway.pid()))),
    Promise.all(pages),
  ])
  const backlogs = answers.flatMap(({ backlog }) => (backlog === undefined ? [] : Number(backlog)))
  return {
    rssBytes,
    backlog: backlogs.length === 0 ? undefined : Math.max(...backlogs),
    sliceAdmissions: answers.reduce((sum, { sliceAdmissions = 0 }) => sum + Number(sliceAdmissions), 0),
    health: answers.flatMap(({ status }) => status ?? []),
  }
}

/** Empty when it does not answer. */
async function page(url: string, signal: AbortSignal): Promise<string> {
  try {
    return await (await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(answerTimeoutMs)]) })).text()
  } catch {
    return ''
  }
}

async function rssOf(pid: number): Promise<number> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)]).catch(() => ({ stdout: '0' }))
  return Number(stdout) * 1_024
}

import { readFileSync } from 'node:fs'

/** Self time of the functions in a CPU profile of V8, in microseconds, by name and place. */
export interface SelfTimes {
  /** Without what was idle. */
  readonly totalUs: number
  readonly functions: ReadonlyMap<string, number>
  /** By folder of the source, package, or part of Node. */
  readonly places: ReadonlyMap<string, number>
}

interface Frame {
  readonly functionName: string
  readonly url: string
  readonly lineNumber: number
}

/** Reads the last `lastMs` of a `.cpuprofile` as `node --cpu-prof` writes it. */
export function readSelfTimes(file: string, lastMs: number): SelfTimes {
  const profile: unknown = JSON.parse(readFileSync(file, 'utf8'))
  const { nodes, samples, timeDeltas, startTime, endTime } = Object(profile)
  if (!Array.isArray(nodes) || !Array.isArray(samples) || !Array.isArray(timeDeltas))
    throw new Error(`${file} is no CPU profile`)
  const frames = new Map<unknown, Frame>(nodes.map((node) => [node.id, node.callFrame]))
  const functions = new Map<string, number>()
  const places = new Map<string, number>()
  let totalUs = 0
  let atUs = Number(startTime)
  const fromUs = Number(endTime) - lastMs * 1_000
  samples.forEach((id, index) => {
    const frame = frames.get(id)
    const us = Number(timeDeltas[index])
    atUs += us
    if (atUs < fromUs || frame === undefined || frame.functionName === '(idle)') return
    totalUs += us
    const place = placeOf(frame)
    add(places, place, us)
    add(functions, `${frame.functionName || '(anonymous)'} ${whereOf(frame)}`.trim(), us)
  })
  return { totalUs, functions, places }
}

function add(sums: Map<string, number>, name: string, us: number): void {
  sums.set(name, (sums.get(name) ?? 0) + us)
}

function whereOf({ url, lineNumber }: Frame): string {
  if (url === '') return ''
  const file = /(?:\/((?:src|gen|node_modules)\/.*)|(node:.*))$/.exec(url)
  return `${file?.[1] ?? file?.[2] ?? url}:${lineNumber + 1}`
}

/** `src/limits`, `node:net`, the name of a package, `(native)`, or what V8 calls itself, such as `(garbage collector)`. */
function placeOf({ functionName, url }: Frame): string {
  const packageName = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1]
  if (packageName !== undefined) return packageName
  const folder = /\/(src\/[^/]+|gen)\//.exec(url)?.[1]
  if (folder !== undefined) return folder
  if (url.startsWith('node:')) return url.replace('node:internal/', 'node:').split('/', 1)[0] ?? url
  if (url !== '') return 'src'
  return functionName.startsWith('(') ? functionName : '(native)'
}

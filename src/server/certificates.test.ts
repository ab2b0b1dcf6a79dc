import { X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { createTestCa, type Pair, selfSigned } from '../../test/support/test-ca.ts'
import { type Certificates, type CertificatesOptions, followCertificates } from './certificates.ts'

const ca = createTestCa()
let folder: string
let paths: { certPath: string; keyPath: string; clientCaPath: string }
let lines: string[]
let certificates: Certificates | undefined
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tollgate-certificates-'))
  paths = { certPath: join(folder, 'tls.crt'), keyPath: join(folder, 'tls.key'), clientCaPath: join(folder, 'ca.crt') }
  lines = []
  write(ca.issue({ commonName: 'first' }))
  writeFileSync(paths.clientCaPath, ca.cert)
})
afterEach(() => {
  certificates?.close()
  certificates = undefined
  rmSync(folder, { recursive: true })
})

function write({ cert, key }: Pair): void {
  writeFileSync(paths.certPath, cert)
  writeFileSync(paths.keyPath, key)
}

async function follow(options: Partial<CertificatesOptions> = {}): Promise<Certificates> {
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) })
  certificates = await followCertificates({ ...paths, log, settleMs: 20, ...options })
  return certificates
}

function nameInUse(): string | undefined {
  return certificates && new X509Certificate(certificates.current().cert).subject
}

/** Times that the log said so. */
function said(text: string): number {
  return lines.filter((line) => line.includes(text)).length
}

describe('new files are taken into use', () => {
  it('when they are written over the old ones', async () => {
    const { onChange, state } = await follow({ pollMs: 600_000 })
    const applied: string[] = []
    onChange(({ cert }) => applied.push(new X509Certificate(cert).subject))
    write(ca.issue({ commonName: 'second' }))
    await eventually(() => nameInUse() === 'CN=second')
    expect(applied).toEqual(['CN=second'])
    expect(state()).toMatchObject({ reloads: 1, failing: undefined })
    expect(said('certificate reloaded')).toBe(1)
  })

  it('when a link above them is swapped, as Kubernetes does', async () => {
    const mount = join(folder, 'mount')
    for (const [version, name] of [
      ['v1', 'first'],
      ['v2', 'second'],
    ] as const) {
      const { cert, key } = ca.issue({ commonName: name })
      mkdirSync(join(mount, version), { recursive: true })
      writeFileSync(join(mount, version, 'tls.crt'), cert)
      writeFileSync(join(mount, version, 'tls.key'), key)
    }
    symlinkSync('v1', join(mount, '..data'))
    symlinkSync('..data/tls.crt', join(mount, 'tls.crt'))
    symlinkSync('..data/tls.key', join(mount, 'tls.key'))
    await follow({ certPath: join(mount, 'tls.crt'), keyPath: join(mount, 'tls.key'), pollMs: 600_000 })
    expect(nameInUse()).toBe('CN=first')
    symlinkSync('v2', join(mount, '..data_tmp'))
    renameSync(join(mount, '..data_tmp'), join(mount, '..data'))
    await eventually(() => nameInUse() === 'CN=second')
  })

  it('by looking, where changes are not told', async () => {
    await follow({ pollMs: 20, settleMs: 600_000 })
    write(ca.issue({ commonName: 'second' }))
    await eventually(() => nameInUse() === 'CN=second')
  })

  it('the CA of clients among them', async () => {
    const { current } = await follow()
    const other = createTestCa('other')
    writeFileSync(paths.clientCaPath, other.cert)
    await eventually(() => current().ca === other.cert)
  })
})

describe('files that cannot be used are kept out, said once, and mended by good ones:', () => {
  const now = Date.now()
  const broken: [string, () => void, RegExp][] = [
    ['a certificate of another key', () => writeFileSync(paths.certPath, ca.issue().cert), /key values mismatch/],
    ['no certificate', () => writeFileSync(paths.certPath, 'nothing'), /the certificate file holds no certificate/],
    ['half a key', () => writeFileSync(paths.keyPath, ca.issue().key.slice(0, 80)), /PEM|DECODER/i],
    ['no key', () => rmSync(paths.keyPath), /ENOENT.*tls\.key/],
    ['an expired one', () => write(ca.issue({ notAfterMs: now - 60_000 })), /it expired at/],
    ['one of the future', () => write(ca.issue({ notBeforeMs: now + 3_600_000 })), /it is not valid before/],
    ['an empty CA file', () => writeFileSync(paths.clientCaPath, ''), /the CA file holds no certificate/],
    ['a CA that is none', () => writeFileSync(paths.clientCaPath, ca.issue().cert), /may not vouch for others/],
  ]
  it.each(broken)('%s', async (_, breakIt, why) => {
    const { state } = await follow({ pollMs: 20 })
    breakIt()
    const failing = await eventually(() => state().failing)
    expect(failing).toMatch(why)
    expect(nameInUse()).toBe('CN=first')
    write(ca.issue({ commonName: 'second' }))
    writeFileSync(paths.clientCaPath, ca.cert)
    await eventually(() => state().failing === undefined && nameInUse() === 'CN=second')
    expect(lines.join()).not.toContain('PRIVATE KEY')
  })

  it('a pair that is half written when it is looked at is not broken', async () => {
    let looks = 0
    const now = () => {
      looks++
      return Date.now()
    }
    const { state } = await follow({ pollMs: 600_000, settleMs: 500, now })
    const before = looks
    const { cert, key } = ca.issue({ commonName: 'second' })
    writeFileSync(paths.certPath, cert)
    await eventually(() => looks > before)
    writeFileSync(paths.keyPath, key)
    await eventually(() => nameInUse() === 'CN=second')
    expect(said('ALERT')).toBe(0)
    expect(state()).toMatchObject({ reloads: 1, failing: undefined })
  })

  it('what stays broken is looked at again and again, and said once', async () => {
    let looks = 0
    const now = () => {
      looks++
      return Date.now()
    }
    const { state } = await follow({ pollMs: 20, now })
    writeFileSync(paths.certPath, selfSigned().cert)
    const failing = await eventually(() => state().failing)
    const before = looks
    await eventually(() => looks > before + 3)
    expect(said(failing)).toBe(1)
  })

  it('what is put back as it was is no reload', async () => {
    const { state } = await follow({ pollMs: 20 })
    const { cert } = certificates?.current() ?? { cert: '' }
    writeFileSync(paths.certPath, selfSigned().cert)
    await eventually(() => state().failing)
    writeFileSync(paths.certPath, cert)
    await eventually(() => state().failing === undefined)
    expect(state().reloads).toBe(0)
  })
})

describe('the first files', () => {
  it('fail the start when they cannot be used', async () => {
    await expect(follow({ keyPath: join(folder, 'none.pem') })).rejects.toThrow('none.pem')
    writeFileSync(paths.clientCaPath, 'nothing')
    await expect(follow()).rejects.toThrow('the CA file holds no certificate')
  })

  it('are used with a warning when they are only out of their time', async () => {
    const expired = ca.issue({ notAfterMs: Date.now() - 60_000 })
    write(expired)
    const { current } = await follow()
    expect(current().cert).toBe(expired.cert)
    expect(said('callers will not take it')).toBe(1)
  })
})

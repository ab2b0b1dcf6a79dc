import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestCa, selfSigned } from '../../test/support/test-ca.ts'
import { loadConfig } from '../config.ts'
import { runDoctor } from './doctor.ts'

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-doctor-'))
})

afterAll(() => rm(folder, { recursive: true }))

/** Exit code and lines of the doctor of a gate that takes certificates of this authority's clients. */
async function examined(authority: string) {
  const { cert, key } = selfSigned()
  const paths = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem'), ca: join(folder, 'ca.pem') }
  await Promise.all([writeFile(paths.cert, cert), writeFile(paths.key, key), writeFile(paths.ca, authority)])
  const env = {
    TOLLGATE_DATA_DIR: folder,
    TLS_CERT_FILE: paths.cert,
    TLS_KEY_FILE: paths.key,
    TLS_CLIENT_CA_FILE: paths.ca,
    TLS_CLIENT_AUTH: 'optional',
  }
  let said = ''
  const code = await runDoctor(loadConfig(env, 'serve'), {
    json: false,
    write(text) {
      said += text
    },
  })
  return { code, said }
}

test('fails on an authority of clients that may not vouch for any', async () => {
  const ca = createTestCa()
  const well = await examined(ca.cert)
  expect(well.said).toMatch(/(ok|warning) +TLS: the certificate is good for/)
  expect(well.code).toBe(0)
  const ill = await examined(ca.issue().cert)
  expect(ill.said).toMatch(/FAILED +TLS: .*vouch.*\n +Check .*TLS_CLIENT_CA_FILE/)
  expect(ill.code).toBe(1)
})

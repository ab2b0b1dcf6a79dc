import { readdirSync } from 'node:fs'
import type { DescFile, DescService } from '@bufbuild/protobuf'

/** Every service of marketplace.v1 as gen/ has it, whether the gate serves it or not. */
export async function declaredServices(): Promise<DescService[]> {
  const folder = new URL('../../gen/marketplace/v1/', import.meta.url)
  const modules = await Promise.all(
    readdirSync(folder)
      .sort()
      .map(async (name): Promise<object> => await import(new URL(name, folder).href)),
  )
  return modules.flatMap((each) => Object.values(each).filter(isFile)).flatMap(({ services }) => services)
}

function isFile(value: unknown): value is DescFile {
  return typeof value === 'object' && value !== null && Reflect.get(value, 'kind') === 'file'
}

// Prints the table of CIDs that tests/unit/test_cids.py compares ours with, as the npm package ipfs-unixfs-importer
// makes them. To make it again, in a copy of this folder (needs the network; the tests do not):
//
//   npm install && node make.mjs > unixfs_cids.json
//
// A file of n bytes is the bytes 0 to 250, again and again. "tiny" has chunks of 4 bytes and 3 links a node, so that
// small files have deep trees.
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { BlackHoleBlockstore } from 'blockstore-core'

const KIB = 1024
const MIB = 1024 * KIB
const PERIOD = 251
const PIECE = new Uint8Array(PERIOD * 4096).map((_, i) => i % PERIOD)

async function * bytes (size) {
  for (let left = size; left > 0; left -= PIECE.length) yield left < PIECE.length ? PIECE.subarray(0, left) : PIECE
}

async function root (source, options) {
  let last
  for await (const entry of importer(source, new BlackHoleBlockstore(), options)) last = entry
  return last.cid.toString()
}

async function files (sizes, options) {
  const found = {}
  for (const size of sizes) found[size] = await root({ path: 'f', content: bytes(size) }, { ...options })
  return found
}

async function folders (options) {
  const found = {}
  for (const paths of FOLDERS) {
    const source = paths.map(path => ({ path, content: new TextEncoder().encode(`this is ${path}\n`) }))
    found[paths.join('|')] = await root(source, { ...options, wrapWithDirectory: true })
  }
  return found
}

const FOLDERS = [
  ['output/result.json'],
  ['b', 'a', 'B', 'a b', 'é', 'ab', '10', '9'],
  ['a/b/c/d', 'a/b/e', 'a/f', 'g'],
  Array.from({ length: 300 }, (_, i) => `file-${i}.txt`)
]
const V0 = { profile: 'unixfs-v0-2015' }
const V1 = { profile: 'unixfs-v1-2025' }
const TINY = { chunker: fixedSize({ chunkSize: 4 }), layout: balanced({ maxChildrenPerNode: 3 }) }
const FEW = [...Array(45).keys(), 71, 72, 73, 107, 108, 109, 110, 323, 324, 325, 971, 972, 973]

const K = 256 * KIB
console.log(JSON.stringify({
  'unixfs-v0-2015': await files(
    [0, 1, 4, 1000, K - 1, K, K + 1, 2 * K, 173 * K, 174 * K - 1, 174 * K, 174 * K + 1, 175 * K, 349 * K], V0),
  'unixfs-v1-2025': await files(
    [0, 1, 4, K - 1, K, K + 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 1024 * MIB, 1024 * MIB + 1], V1),
  'tiny-v0': await files(FEW, { ...V0, ...TINY }),
  'tiny-v1': await files(FEW, { ...V1, ...TINY }),
  'folders-v0': await folders(V0),
  'folders-v1': await folders(V1)
}, null, 1))

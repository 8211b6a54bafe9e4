"""`dpwavelet evaluate`: how near are two folders of images?"""
